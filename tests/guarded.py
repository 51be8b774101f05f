"""Arrays that lie against a page nobody may touch: one byte too far, and the process dies.

Kernels that work with raw addresses have no bounds checks. Run them on `guarded` arrays,
inside `guarded_allocations`, in a process of its own (`tests.processes`): exit code 0 means
that nothing was read or written past an array.

Call each kernel once before `guarded_allocations`: what is compiled inside would meet the
replaced functions of NumPy.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import mmap
import os
import sys
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minidnn.kernels import memory

SUPPORTED = os.name == "posix"
NO_ACCESS = 0  # PROT_NONE


def _between_guards(pages: int) -> NDArray[np.uint8]:
    """Return fresh memory of so many pages, with one that nobody may touch before and after."""
    page = mmap.PAGESIZE
    whole = np.frombuffer(mmap.mmap(-1, (pages + 2) * page), np.uint8)
    libc = ctypes.CDLL(None, use_errno=True)
    for guard in (0, page * (pages + 1)):
        address = ctypes.c_void_p(whole.ctypes.data + guard)
        if libc.mprotect(address, ctypes.c_size_t(page), NO_ACCESS):
            raise OSError(ctypes.get_errno(), "mprotect")
    return whole[page:-page]


_idle: defaultdict[int, list[NDArray[np.uint8]]] = defaultdict(list)


class _Loan:
    """Memory that goes back to `_idle` with the last array made on it; guards are dear."""

    def __init__(self, pages: int) -> None:
        self.pages = pages
        self.memory = _idle[pages].pop() if _idle[pages] else _between_guards(pages)
        self.__array_interface__ = self.memory.__array_interface__

    def __del__(self) -> None:
        _idle[self.pages].append(self.memory)


def place(shape: tuple[int, ...] | int, dtype: Any, at: str = "end") -> NDArray[Any]:
    """Return an array of zeros between two unreadable pages.

    Parameters
    ----------
    at : str
        "end": its last byte is the last before a guard page, which finds what goes too far.
        "start": its first byte is the first after one, which finds what begins too early.
    """
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    size = math.prod(shape) * np.dtype(dtype).itemsize
    room = np.asarray(_Loan(max(1, -(-size // mmap.PAGESIZE))))
    a: NDArray[Any] = np.ndarray(
        shape, dtype, room, offset=0 if at == "start" else room.size - size
    )
    a[...] = 0
    return a


def guarded(a: NDArray[Any], at: str = "end") -> NDArray[Any]:
    """Return a copy of an array, placed as `place` does."""
    copy = place(a.shape, a.dtype, at)
    copy[...] = a
    return copy


@contextlib.contextmanager
def guarded_allocations(at: str = "end") -> Iterator[None]:
    """Inside the block, kernels' results and scratch arrays are guarded as well."""

    def empty(shape: tuple[int, ...] | int, dtype: Any = np.float64) -> NDArray[Any]:
        return place(shape, dtype, at)

    def empty_like(a: NDArray[Any]) -> NDArray[Any]:
        return place(a.shape, a.dtype, at)

    originals = {
        memory.empty: empty,
        memory.empty_like: empty_like,
        np.empty: empty,
        np.zeros: empty,
        np.empty_like: empty_like,
        np.zeros_like: empty_like,
    }
    places = [
        (module, name, value)
        for key, module in list(sys.modules.items())
        if key == "numpy" or key.startswith("minidnn.kernels")
        for name, value in list(vars(module).items())
        if callable(value) and any(value is original for original in originals)
    ]
    for module, name, value in places:
        setattr(module, name, originals[value])
    try:
        yield
    finally:
        for module, name, value in places:
            setattr(module, name, value)
