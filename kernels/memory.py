"""Where kernels get their large arrays from: an arena that hands blocks out again.

A training step allocates gigabytes, and fresh memory costs page faults: the system clears
every page before it is touched (51 MB arrays, 2 cores: 7 ms each to fill fresh, 2 ms from
here). The arena keeps the blocks of arrays that are gone and gives them to the next ones.

No bookkeeping is needed to know when an array is gone: a block is the `base` of the array
made on it, so every array, view and closure keeps it alive, and Python deletes it with the
last of them. That deletion returns the memory.
"""

from __future__ import annotations

import sys
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

SMALLEST = 1 << 20  # below this malloc reuses memory by itself
IDLE_LIMIT = 4 << 30  # bytes kept for reuse at the most; the longest unused go first
ALIGNMENT = 64  # one cache line, one AVX-512 register


class Counts(NamedTuple):
    """How often blocks were taken, how many bytes they had, and how many of those were new."""

    takes: int
    taken_bytes: int
    fresh_bytes: int


class _Arena:
    def __init__(self) -> None:
        # A lock that the same thread may take twice: the garbage collector can run
        # `_Block.__del__` while `take` holds it.
        self.lock = threading.RLock()
        self.idle: OrderedDict[int, list[NDArray[np.uint8]]] = OrderedDict()
        self.idle_bytes = 0
        self.takes = self.taken_bytes = self.fresh_bytes = 0
        self.limit = IDLE_LIMIT  # kept here: at interpreter exit the module's names are gone

    def take(self, size: int) -> NDArray[np.uint8]:
        with self.lock:
            self.takes += 1
            self.taken_bytes += size
            memories = self.idle.get(size)
            if memories:
                self.idle_bytes -= size
                return memories.pop()
            self.fresh_bytes += size
        raw = np.empty(size + ALIGNMENT, np.uint8)
        start = -raw.ctypes.data % ALIGNMENT
        return raw[start : start + size]

    def give_back(self, memory: NDArray[np.uint8]) -> None:
        with self.lock:
            self.idle.setdefault(memory.size, []).append(memory)
            self.idle.move_to_end(memory.size)
            self.idle_bytes += memory.size
            while self.idle_bytes > self.limit:
                size, memories = next(iter(self.idle.items()))
                if memories:
                    memories.pop()
                    self.idle_bytes -= size
                else:
                    del self.idle[size]

    def release(self) -> None:
        with self.lock:
            self.idle.clear()
            self.idle_bytes = 0


_arena = _Arena()


class _Block:
    """Memory on loan; NumPy keeps it alive as the base of the arrays made on it."""

    __slots__ = ("__array_interface__", "memory")

    def __init__(self, memory: NDArray[np.uint8]) -> None:
        self.memory = memory
        self.__array_interface__ = memory.__array_interface__

    # Bound as a default: at interpreter exit the module's names may be gone already.
    def __del__(self, give_back: Callable[[NDArray[np.uint8]], None] = _arena.give_back) -> None:
        give_back(self.memory)


def _size_class(size: int) -> int:
    """Round up to an eighth of the power of two below, so that similar shapes share blocks."""
    step = max(SMALLEST, 1 << (size.bit_length() - 4))
    return -(-size // step) * step


def empty(shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """Return an array of undefined contents, like `numpy.empty`; a large one on reused memory."""
    wanted = np.dtype(dtype)
    size = wanted.itemsize
    for n in shape:
        size *= n
    if size < SMALLEST:
        return np.empty(shape, wanted)
    return np.ndarray(shape, wanted, np.asarray(_Block(_arena.take(_size_class(size)))))


def empty_like(a: NDArray[Any]) -> NDArray[Any]:
    """Return `empty` of another array's shape and dtype."""
    return empty(a.shape, a.dtype)


def _references(holder: Any, key: int) -> list[int]:
    """Count who refers to an array, and to each thing it is a view of."""
    counts, link = [], holder[key]
    while link is not None:
        # Memory of other owners counts as shared: who knows who can reach it.
        known = isinstance(link, np.ndarray | _Block) and hasattr(sys, "getrefcount")
        counts.append(sys.getrefcount(link) if known else sys.maxsize)
        link = getattr(link, "base", None)
    return counts


_ALONE = _references([np.empty(1)], 0)[0]  # what is counted for an array that only a list holds


def held_alone(holder: dict[int, NDArray[Any]] | list[NDArray[Any]], key: int) -> bool:
    """Tell whether nobody but `holder` can reach the memory of ``holder[key]``.

    Then whoever owns the holder may write to that array or keep it. Every array, view, closure
    and local variable is a reference: the answer is yes only where the array, and everything it
    is a view of, has exactly one. So the caller must have no other name for it.
    """
    if sys.maxsize == _ALONE or type(holder[key]) is not np.ndarray:
        return False
    return bool(holder[key].flags.writeable) and set(_references(holder, key)) == {_ALONE}


def zeros(shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """Return an array of zeros, a large one on reused memory."""
    a = empty(shape, dtype)
    a.fill(0)
    return a


def idle_bytes() -> int:
    """Return how many bytes wait to be reused."""
    return _arena.idle_bytes


def counts() -> Counts:
    """Return what this process has taken since it began; take the difference of two calls."""
    return Counts(_arena.takes, _arena.taken_bytes, _arena.fresh_bytes)


def release() -> None:
    """Give the idle blocks back to the system, for example after training."""
    _arena.release()
