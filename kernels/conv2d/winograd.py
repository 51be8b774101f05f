"""Winograd's F(2x2, 3x3), in all three directions (Lavin and Gray 2015, arXiv:1509.09308).

A tile of 2x2 outputs of a 3x3 convolution takes 36 products. With D its 4x4 window and the
kernel w,

    Y = A' [(G w G') * (B' D B)] A        (' turns a matrix, * multiplies number by number)

takes 16 (2.25 times fewer), since each of these matrices does nothing but add, subtract and halve:

    B'D: d0 - d2, d1 + d2, d2 - d1, d1 - d3     A'm: m0 + m1 + m2, m1 - m2 - m3
    Gw:  w0, (w0 + w1 + w2)/2, (w0 - w1 + w2)/2, w2

Summed over channels, each of the 16 places is a matrix product over (tiles, channels).
The gradient of w follows from the same formula, read backwards: dw = G'[(B'DB) * (A dY A')]G
summed over tiles, which is F(3x3, 2x2). The gradient of x is a convolution of dy with the turned
kernel, so it is Winograd's formula forward.

Rounding is larger: 16 products of sums of four, of which many cancel, stand for nine. For random
numbers the squares of what is added up are 25/9 as large. And a number that is infinite or NaN
spoils all four outputs of its tiles, not only those whose window holds it.

`winograd_tiles` lays tiles out and puts them together again.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..checks import Array
from ..gemm import multiply, multiply_transposed
from ..jit import chunks, max_threads, parallel, prange, thread_id
from ..memory import empty
from ..simd import LANES, address
from ..tile import TILE_COLUMNS, TILE_ROWS
from ..windows import Pads, Pair, output_size
from . import backward_input as _input
from . import backward_weight as _weight
from . import forward as _forward
from .winograd_tiles import PLACES, gather_tile, spread_gradient_tile, spread_tile

# Numbers of the tiles in work, of all places: half of a second-level cache of 1 MB. But some tiles
# there are, since the weights of all places are read once for each block of tiles.
BLOCK, FEWEST, MOST = 1 << 17, 64, 256
GROUP = 1 << 21  # numbers of the tiles between two steps of the weights' gradient
TILES = 16  # tiles to lay out that are worth a thread


def applies(a: Array, kernel_size: Pair, stride: Pair, dilation: Pair, groups: int) -> bool:
    """Tell whether the formula is for this: float32, one group, 3x3 at stride 1, not dilated."""
    ones = tuple(stride) == (1, 1) == tuple(dilation)
    return a.dtype == np.float32 and tuple(kernel_size) == (3, 3) and ones and groups == 1


# --- the kernel -----------------------------------------------------------------------


def _along_rows(w: Array) -> Array:
    """G along the first axis: (3, ...) -> (4, ...)."""
    outer, half = (w[0] + w[2]) / 2, w[1] / 2
    return np.stack([w[0], outer + half, outer - half, w[2]])


def spread_weights(w: Array) -> Array:
    """w (3, 3, Cin, Cout) -> G w G' (16, Cin, Cout)."""
    rows = _along_rows(w)
    both = np.swapaxes(_along_rows(np.swapaxes(rows, 0, 1)), 0, 1)
    return np.ascontiguousarray(both).reshape(PLACES, *w.shape[2:])


def _back_along_rows(u: Array) -> Array:
    """G' along the first axis: (4, ...) -> (3, ...)."""
    outer = (u[1] + u[2]) / 2
    return np.stack([u[0] + outer, (u[1] - u[2]) / 2, outer + u[3]])


def gather_weights(u: Array) -> Array:
    """The gradient of `spread_weights`: (16, Cin, Cout) -> (3, 3, Cin, Cout)."""
    rows = _back_along_rows(u.reshape(4, 4, *u.shape[1:]))
    return np.ascontiguousarray(np.swapaxes(_back_along_rows(np.swapaxes(rows, 0, 1)), 0, 1))


# --- products ------------------------------------------------------------------------


class Room:
    """What each thread needs for itself, apart from tiles."""

    def __init__(self, channels: int) -> None:
        threads = max_threads()
        self.places = np.empty((threads, PLACES), np.int64)
        self.middle = np.empty((threads, PLACES * LANES), np.float32)
        self.zeros = np.zeros(channels + LANES, np.float32)  # read outside the map
        self.waste = np.empty((threads, channels + LANES), np.float32)  # written outside it


def counts_of(size: tuple[int, ...]) -> Pair:
    """Return how many tiles of 2x2 outputs cover a map, down and across."""
    return -(-size[0] // 2), -(-size[1] // 2)


def convolve(x: Array, w: Array, size: Pair, before: Pair) -> Array:
    """Convolve x (N, H, W, Cin) with w (3, 3, Cin, Cout) -> y (N, *size, Cout)."""
    cin, cout = w.shape[2:]
    y, counts = empty((len(x), *size, cout), x.dtype), counts_of(size)
    n_tiles = len(x) * counts[0] * counts[1]
    block = min(MOST, max(FEWEST, BLOCK // (PLACES * (cin + cout))))
    block = min(block, max(1, n_tiles // 16))  # few tiles are cut finer, for all threads
    block = -(-block // TILE_ROWS) * TILE_ROWS
    room, threads = Room(max(cin, cout)), max_threads()
    convolve_loop(
        x, spread_weights(w), y, counts, before,
        empty((threads, PLACES, block, cin), x.dtype),
        empty((threads, PLACES, block, cout), x.dtype),
        room.places, room.middle, room.zeros, room.waste,
    )  # fmt: skip
    return y


@parallel
def convolve_loop(
    x: Array, u: Array, y: Array, counts: Pair, before: Pair, v: Array, m: Array,
    places: Array, middle: Array, zeros: Array, waste: Array,
) -> None:  # fmt: skip
    """x, weights u (16, Cin, Cout) -> y; v, m (threads, 16, tiles, channels) are room."""
    n_tiles, block = len(x) * counts[0] * counts[1], v.shape[2]
    columns = -(-y.shape[3] // TILE_COLUMNS)
    for turn in prange(-(-n_tiles // block)):
        part: Any = np.int64(turn)  # a signed number, for addresses
        own = thread_id()
        first, between = part * block, address(middle[own])
        count = min(block, n_tiles - first)
        for i in range(count):
            spread_tile(
                x, first + i, counts, before, v[own], i, address(zeros), places[own], between
            )
        for place in range(PLACES):
            multiply(v[own, place, :count], u[place], m[own, place, :count], 0, columns)
        for i in range(count):
            gather_tile(m[own], i, y, first + i, counts, address(waste[own]), places[own], between)


def sum_products(x: Array, dy: Array, before: Pair) -> Array:
    """Return dw (3, 3, Cin, Cout) of x (N, H, W, Cin) and dy (N, OH, OW, Cout)."""
    cin, cout, counts = x.shape[3], dy.shape[3], counts_of(dy.shape[1:3])
    n_tiles = len(x) * counts[0] * counts[1]
    group = max(FEWEST, min(n_tiles, GROUP // (PLACES * (cin + cout))))
    v, d = (empty((PLACES, group, c), x.dtype) for c in (cin, cout))
    du, room = empty((PLACES, cin, cout), x.dtype), Room(max(cin, cout))
    for first in range(0, n_tiles, group):
        count = min(group, n_tiles - first)
        spread_loop(
            x, dy, v, d, counts, before, first, count, chunks(count, TILES),
            room.places, room.middle, room.zeros,
        )  # fmt: skip
        parts = -(-cout // TILE_COLUMNS)
        products_loop(v, d, du, count, min(parts, 4), first > 0)
    return gather_weights(du)


@parallel
def spread_loop(
    x: Array, dy: Array, v: Array, d: Array, counts: Pair, before: Pair, first: int, count: int,
    n_chunks: int, places: Array, middle: Array, zeros: Array,
) -> None:  # fmt: skip
    """Lay tiles first .. first + count - 1 of x and dy out into v and d (16, tiles, channels)."""
    for turn in prange(n_chunks):
        chunk: Any = np.int64(turn)
        own, outside = thread_id(), address(zeros)
        between = address(middle[own])
        for i in range(chunk * count // n_chunks, (chunk + 1) * count // n_chunks):
            spread_tile(x, first + i, counts, before, v, i, outside, places[own], between)
            spread_gradient_tile(dy, first + i, counts, d, i, outside, places[own], between)


@parallel
def products_loop(
    v: Array, d: Array, du: Array, count: int, by_column: int, accumulate: bool
) -> None:
    """v (16, tiles, Cin).T @ d (16, tiles, Cout), place by place -> du, or added to it."""
    columns = -(-du.shape[2] // TILE_COLUMNS)
    for turn in prange(PLACES * by_column):
        task: Any = np.int64(turn)
        place, part = task // by_column, task % by_column
        left, right = part * columns // by_column, (part + 1) * columns // by_column
        multiply_transposed(v[place, :count], d[place, :count], du[place], left, right, accumulate)


# --- the rungs ------------------------------------------------------------------------


def forward(
    x: Array,
    w: Array,
    *,
    stride: Pair = (1, 1),
    pads: Pads = (0, 0, 0, 0),
    dilation: Pair = (1, 1),
    groups: int = 1,
) -> Array:
    """Winograd F(2x2, 3x3): 16 products for four outputs in place of 36; other shapes run simd.

    Saves: 5 of 9 multiplications. Costs: additions, about 4 times the memory traffic around the
    products, and rounding.
    Measure: many channels against few, where laying tiles out takes longer than multiplying.
    """
    if not applies(x, w.shape[:2], stride, dilation, groups):
        return _forward.simd(x, w, stride=stride, pads=pads, dilation=dilation, groups=groups)
    size = output_size(x.shape[1:3], (3, 3), stride=(1, 1), pads=pads)
    return convolve(x, w, size, (pads[0], pads[2]))


def backward_input(
    dy: Array,
    w: Array,
    *,
    size: Pair,
    stride: Pair = (1, 1),
    pads: Pads = (0, 0, 0, 0),
    dilation: Pair = (1, 1),
    groups: int = 1,
) -> Array:
    """Winograd F(2x2, 3x3) of dy with the turned kernel; other shapes run simd.

    Saves, costs and measure: as forward.
    """
    if not applies(dy, w.shape[:2], stride, dilation, groups):
        return _input.simd(
            dy, w, size=size, stride=stride, pads=pads, dilation=dilation, groups=groups
        )
    turned = np.ascontiguousarray(np.swapaxes(w[::-1, ::-1], 2, 3))
    return convolve(dy, turned, size, (2 - pads[0], 2 - pads[2]))


def backward_weight(
    dy: Array,
    x: Array,
    *,
    kernel_size: Pair,
    stride: Pair = (1, 1),
    pads: Pads = (0, 0, 0, 0),
    dilation: Pair = (1, 1),
    groups: int = 1,
) -> Array:
    """Winograd F(3x3, 2x2): 16 products per tile of dy in place of 36; other shapes run simd.

    Saves: as forward. Costs: the tiles of x and of dy are both laid out, four times as large.
    Measure: as forward.
    """
    if not applies(x, kernel_size, stride, dilation, groups):
        return _weight.simd(
            dy, x, kernel_size=kernel_size, stride=stride, pads=pads, dilation=dilation,
            groups=groups,
        )  # fmt: skip
    return sum_products(x, dy, (pads[0], pads[2]))
