"""The tiles of Winograd's F(2x2, 3x3), laid out and put together, by explicit vectors of channels.

Of the tiles of all images, in order: `counts` = (rows, columns) of tiles of a map. Outside
the map zeros are read, and what is written goes to a place that nobody reads. Each 4x4 matrix is
turned in two steps, down its columns and along its rows; between them it is `middle`, 16
vectors in the first-level cache.
"""

from __future__ import annotations

from typing import Any

from ..checks import Array
from ..depthwise.sliding import inside, read, write
from ..jit import kernel
from ..simd import LANES, VECTOR_BYTES, add, address, subtract, zero
from ..windows import Pair

PLACES = 16


@kernel
def spread_four(a: int, b: int, c: int, d: int, to: int, step: int, lanes: Any, out: Any) -> None:
    """B' of four vectors at these addresses, of so many lanes; the four results `step` apart."""
    p, q, r, s = read(a, lanes), read(b, lanes), read(c, lanes), read(d, lanes)
    write(subtract(p, r), to, False, out)
    write(add(q, r), to + step, False, out)
    write(subtract(r, q), to + 2 * step, False, out)
    write(subtract(q, s), to + 3 * step, False, out)


@kernel
def spread_two(a: int, b: int, to: int, step: int, lanes: Any, out: Any) -> None:
    """A of two vectors."""
    p, q = read(a, lanes), read(b, lanes)
    write(p, to, False, out)
    write(add(p, q), to + step, False, out)
    write(subtract(p, q), to + 2 * step, False, out)
    write(subtract(zero(), q), to + 3 * step, False, out)


@kernel
def gather_four(
    a: int, b: int, c: int, d: int, to: int, below: int, lanes: Any, out: Any
) -> None:  # fmt: skip
    """A' of four vectors; two results."""
    p, q, r, s = read(a, lanes), read(b, lanes), read(c, lanes), read(d, lanes)
    write(add(add(p, q), r), to, False, out)
    write(subtract(subtract(q, r), s), below, False, out)


@kernel
def find_places(
    a: Array, tile: int, counts: Pair, before: Pair, side: int, outside: int, places: Array
) -> None:
    """Fill places with the addresses of the side x side pixels of a tile of a (N, H, W, C)."""
    _, height, width, channels = a.shape
    n, rest = tile // (counts[0] * counts[1]), tile % (counts[0] * counts[1])
    top, left = rest // counts[1] * 2 - before[0], rest % counts[1] * 2 - before[1]
    for i in range(side):
        for j in range(side):
            pixel = (n * height + top + i) * width + left + j
            seen = inside(top + i, height) and inside(left + j, width)
            places[side * i + j] = address(a) + 4 * channels * pixel if seen else outside


@kernel
def spread_window(places: Array, at: int, middle: int, to: int, plane: int, lanes: Any) -> None:
    """B'DB of a vector of channels; D's numbers are `at` bytes behind the 16 places."""
    for j in range(4):
        spread_four(
            places[j] + at, places[4 + j] + at, places[8 + j] + at, places[12 + j] + at,
            middle + j * VECTOR_BYTES, 4 * VECTOR_BYTES, lanes, None,
        )  # fmt: skip
    for i in range(4):
        row = middle + 4 * i * VECTOR_BYTES
        spread_four(
            row, row + VECTOR_BYTES, row + 2 * VECTOR_BYTES, row + 3 * VECTOR_BYTES,
            to + 4 * i * plane, plane, None, lanes,
        )  # fmt: skip


@kernel
def spread_gradient(places: Array, at: int, middle: int, to: int, plane: int, lanes: Any) -> None:
    """A dY A' of a vector of channels; dY's numbers are `at` bytes behind the 4 places."""
    for j in range(2):
        spread_two(
            places[j] + at, places[2 + j] + at,
            middle + j * VECTOR_BYTES, 2 * VECTOR_BYTES, lanes, None,
        )  # fmt: skip
    for i in range(4):
        row = middle + 2 * i * VECTOR_BYTES
        spread_two(row, row + VECTOR_BYTES, to + 4 * i * plane, plane, None, lanes)


@kernel
def gather_outputs(
    places: Array, at: int, middle: int, of: int, plane: int, lanes: Any
) -> None:  # fmt: skip
    """A'mA of a vector of channels, to `at` bytes behind the 4 places."""
    for j in range(4):
        m = of + j * plane
        gather_four(
            m, m + 4 * plane, m + 8 * plane, m + 12 * plane,
            middle + j * VECTOR_BYTES, middle + (4 + j) * VECTOR_BYTES, lanes, None,
        )  # fmt: skip
    for i in range(2):
        row = middle + 4 * i * VECTOR_BYTES
        gather_four(
            row, row + VECTOR_BYTES, row + 2 * VECTOR_BYTES, row + 3 * VECTOR_BYTES,
            places[2 * i] + at, places[2 * i + 1] + at, None, lanes,
        )  # fmt: skip


@kernel
def spread_tile(
    a: Array, tile: int, counts: Pair, before: Pair, v: Array, i: int, outside: int,
    places: Array, middle: int,
) -> None:  # fmt: skip
    """Lay a window (a tile of x) out into v[:, i] (16, tiles, C); before = (top, left) padding."""
    find_places(a, tile, counts, before, 4, outside, places)
    channels, plane = a.shape[3], 4 * v.shape[1] * v.shape[2]
    rest, to = channels % LANES, address(v) + 4 * i * v.shape[2]
    for c in range(0, channels - rest, LANES):
        spread_window(places, 4 * c, middle, to + 4 * c, plane, None)
    if rest:
        c = channels - rest
        spread_window(places, 4 * c, middle, to + 4 * c, plane, rest)


@kernel
def spread_gradient_tile(
    dy: Array, tile: int, counts: Pair, v: Array, i: int, outside: int, places: Array, middle: int
) -> None:
    """Lay a tile of dy out into v[:, i] (16, tiles, C)."""
    find_places(dy, tile, counts, (0, 0), 2, outside, places)
    channels, plane = dy.shape[3], 4 * v.shape[1] * v.shape[2]
    rest, to = channels % LANES, address(v) + 4 * i * v.shape[2]
    for c in range(0, channels - rest, LANES):
        spread_gradient(places, 4 * c, middle, to + 4 * c, plane, None)
    if rest:
        c = channels - rest
        spread_gradient(places, 4 * c, middle, to + 4 * c, plane, rest)


@kernel
def gather_tile(
    m: Array, i: int, y: Array, tile: int, counts: Pair, outside: int, places: Array, middle: int
) -> None:
    """Write the outputs of m[:, i] (16, tiles, C) to a tile of y."""
    find_places(y, tile, counts, (0, 0), 2, outside, places)
    channels, plane = y.shape[3], 4 * m.shape[1] * m.shape[2]
    rest, of = channels % LANES, address(m) + 4 * i * m.shape[2]
    for c in range(0, channels - rest, LANES):
        gather_outputs(places, 4 * c, middle, of + 4 * c, plane, None)
    if rest:
        c = channels - rest
        gather_outputs(places, 4 * c, middle, of + 4 * c, plane, rest)
