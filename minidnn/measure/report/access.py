"""In which order a depthwise convolution's loops touch memory, found by running them.

The loops of `kernels/depthwise` run as plain Python on arrays that only note what is read and
written. So what the page shows is what the kernels do, and stays so when they change.
"""

from __future__ import annotations

from itertools import pairwise
from types import FunctionType
from typing import Any, NamedTuple

import numpy as np

from minidnn.kernels.depthwise.inner import channels_last_forward_loop
from minidnn.kernels.depthwise.plain import naive_forward_loop

SIZE, TAPS, PADS = 4, 3, (1, 1, 1, 1)
CHANNELS = (3, 16)
LINE = 16  # float32 numbers in a cache line of 64 bytes


class Nest(NamedTuple):
    """A nest of loops: its kernel, and the names of its loops from the outermost in."""

    name: str
    idea: str
    file: str
    kernel: Any
    loops: tuple[str, ...]


NESTS = (
    Nest(
        "naive",
        "channels outside, taps innermost",
        "kernels/depthwise/plain.py",
        naive_forward_loop,
        ("oy", "ox", "c", "ky", "kx"),
    ),
    Nest(
        "channels_last",
        "channels innermost",
        "kernels/depthwise/inner.py",
        channels_last_forward_loop,
        ("oy", "ox", "ky", "kx", "c"),
    ),
)


class Order(NamedTuple):
    """What a nest touches, product by product.

    Attributes
    ----------
    x, w, y : list of int
        Places in memory, counted in numbers from the start of each array.
    stored : list of int
        1 where the product's sum was written to y, 0 where it stayed in a register.
    """

    x: list[int]
    w: list[int]
    y: list[int]
    stored: list[int]


class Noted:
    """An array that holds no numbers, and notes which of them are read and written."""

    dtype = np.dtype(np.float32)

    def __init__(self, name: str, places: Any, notes: list[tuple[str, int]]) -> None:
        self._name, self._places, self._notes = name, places, notes
        self.shape, self.size = places.shape, places.size

    def __getitem__(self, key: Any) -> Any:
        found = self._places[key]
        if np.ndim(found):
            return Noted(self._name, found, self._notes)
        self._notes.append((f"read {self._name}", int(found)))
        return 0.0

    def __setitem__(self, key: Any, value: float) -> None:
        del value
        found = self._places[key]
        if not np.ndim(found):  # whole slices are set to zero: that is no product
            self._notes.append((f"write {self._name}", int(found)))


def _inner(kernel: Any) -> dict[str, Any]:
    """Return the compiled functions that a kernel calls, by name."""
    plain = getattr(kernel, "py_func", kernel)  # with NUMBA_DISABLE_JIT=1 it is the function
    named = {name: plain.__globals__.get(name) for name in plain.__code__.co_names}
    return {
        name: value
        for name, value in named.items()
        if hasattr(value, "py_func") or isinstance(value, FunctionType)
    }


def called(kernel: Any) -> list[Any]:
    """Return the functions that a kernel calls, and those they call."""
    found = []
    for function in _inner(kernel).values():
        found += [function, *called(function)]
    return found


def interpreted(kernel: Any) -> Any:
    """Return the Python function behind a compiled one, which calls Python functions only."""
    plain = getattr(kernel, "py_func", kernel)
    inner = {name: interpreted(function) for name, function in _inner(kernel).items()}
    return FunctionType(plain.__code__, {**plain.__globals__, **inner})


def order(nest: Nest, channels: int) -> Order:
    """Return what a nest touches in a padded 3x3 convolution of a 4x4 map of one image."""
    notes: list[tuple[str, int]] = []

    def noted(name: str, *shape: int) -> Noted:
        return Noted(name, np.arange(np.prod(shape)).reshape(shape), notes)

    x, y = (noted(name, 1, SIZE, SIZE, channels) for name in "xy")
    interpreted(nest.kernel)(x, noted("w", TAPS, TAPS, channels), y, (1, 1), PADS)
    found, begun = Order([], [], [], []), 0
    for what, place in notes:
        if what == "read x":
            found.x.append(place)
        elif what == "read w":
            found.w.append(place)
        elif what == "write y":  # it ends all products since the write before
            new = len(found.x) - begun
            found.y.extend([place] * new)
            found.stored.extend([0] * (new - 1) + [1])
            begun = len(found.x)
    return found


def jumps(places: list[int]) -> int:
    """Return how many places lie in another cache line than the one before."""
    lines = [place // LINE for place in places]
    return sum(line != before for before, line in pairwise(lines))


def index(nest_order: Order, step: int, channels: int) -> dict[str, int]:
    """Return the value of every loop at a step."""
    ky, kx, c = map(int, np.unravel_index(nest_order.w[step], (TAPS, TAPS, channels)))
    oy, ox, _ = map(int, np.unravel_index(nest_order.y[step], (SIZE, SIZE, channels)))
    return {"oy": oy, "ox": ox, "c": c, "ky": ky, "kx": kx}


def as_dict() -> dict[str, Any]:
    """Return every order, for the page's own script."""
    return {
        "size": SIZE,
        "taps": TAPS,
        "line": LINE,
        "nests": {nest.name: {"loops": nest.loops} for nest in NESTS},
        "orders": {
            str(channels): {nest.name: order(nest, channels)._asdict() for nest in NESTS}
            for channels in CHANNELS
        },
    }
