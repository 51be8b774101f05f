"""Products with an eighth fewer multiplications: Strassen's method, in Winograd's form.

Cut A, B and C in halves both ways, ``[[C11, C12], [C21, C22]] = [[A11, A12], [A21, A22]] @
[[B11, B12], [B21, B22]]``. The plain way takes eight products of a quarter each; Strassen (1969)
found one of seven, and Winograd (1971) one of seven with the fewest additions::

    S1 = A21 + A22   T1 = B12 - B11   P1 = A11 @ B11   P5 = S1 @ T1   C11 = P1 + P2
    S2 = S1 - A11    T2 = B22 - T1    P2 = A12 @ B21   P6 = S2 @ T2   C12 = P1 + P6 + P5 + P3
    S3 = A11 - A21   T3 = B22 - B12   P3 = S4 @ B22    P7 = S3 @ T3   C21 = P1 + P6 + P7 - P4
    S4 = A12 - S2    T4 = T2 - B21    P4 = A22 @ T4                   C22 = P1 + P6 + P7 + P5

At inference the sums of B are made once, and packed like any matrix; those of A are one pass
over its rows; and those of C stay in registers and the first-level cache, because all seven
products of a register tile follow each other (`halves_tile`). `minidnn compile RUN --explain`
shows which steps are multiplied so, and their times.

A row of A11 and the row of A21 below it share products, so the rounding of one shows in the
other. They are neighbouring pixels of one image here, never pixels of two images: what is in an
image (a NaN, say) must not show in another one's results. A row that has no neighbour is paired
with zeros: then four of the seven products are left, as many as the plain way takes. Errors are
some times those of the plain way (Higham 2002, section 23.2.2), still of the order of float32
rounding; the matrices' sums are rounded once, from float64.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .checks import Array
from .halves_tile import KEPT, PRODUCTS, SUMS, halves_tile
from .jit import inner
from .simd import LANES, add, load, store, subtract, zero
from .tile import TILE_COLUMNS, TILE_ROWS


def fits(k: int, n: int) -> bool:
    """Tell whether a matrix (K, N) falls into halves of whole vectors and panels."""
    return k % (2 * LANES) == 0 and n % (2 * TILE_COLUMNS) == 0


def pack_halves(b: Array) -> Array:
    """Lay out a matrix (K, N) and its sums: (panels of N / 2, PRODUCTS, K / 2, TILE_COLUMNS)."""
    k, n = b.shape[0] // 2, b.shape[1] // 2
    b = b.astype(np.float32)  # as a file holds it: its sums must be the same
    b11, b12, b21, b22 = b[:k, :n], b[:k, n:], b[k:, :n], b[k:, n:]
    t1, t3 = (np.subtract(x, y, dtype=np.float64) for x, y in ((b12, b11), (b22, b12)))
    t2 = b22 - t1
    packed = np.empty((n // TILE_COLUMNS, PRODUCTS, k, TILE_COLUMNS), np.float32)
    for i, factor in enumerate((b11, b21, t2, t3, b21 - t2, t1, b22)):
        packed[:, i] = factor.reshape(k, -1, TILE_COLUMNS).transpose(1, 0, 2)
    return packed


def numbers_of_pair(k: int) -> int:
    """Return numbers from one pair's S1 to the next one's.

    With a vector to spare: otherwise all pairs would want the same places of the L1 cache.
    """
    return SUMS * k // 2 + LANES


_numbers_of_pair = inner(numbers_of_pair)  # the same for kernels


@inner
def combine(a: int, apart: int, lower: int, k: int, rows: int, lone: bool, to: int) -> None:
    """Write S1 .. S4 of upper rows, `apart` bytes from each other, one after the other.

    Lower rows are `lower` bytes behind them; lone: whether there are none, which counts as zeros.
    """
    half, between = 2 * k, 4 * _numbers_of_pair(k)
    for row in range(rows):
        top, out = a + row * apart, to + row * between
        for i in range(0, half, 4 * LANES):
            a11, a12 = load(top + i), load(top + half + i)
            a21, a22 = zero(), zero()
            if not lone:
                a21, a22 = load(top + lower + i), load(top + lower + half + i)
            s1 = add(a21, a22)
            s2 = subtract(s1, a11)
            store(s1, out + i)
            store(s2, out + half + i)
            store(subtract(a11, a21), out + 2 * half + i)
            store(subtract(a12, s2), out + 3 * half + i)


@inner
def multiply_run(
    rows: int, a: int, a_row: int, pitch: int, k: int, lone: bool, sums: int, matrix: int,
    kept: int, c: int, total: int, n: int, bias: int, slope: int,
) -> None:  # fmt: skip
    """Multiply so many upper rows, `a_row` rows from each other, by a panel: tile by tile."""
    between = _numbers_of_pair(k)
    tiles = (rows + TILE_ROWS - 1) // TILE_ROWS
    for tile in range(tiles):
        low, high = tile * rows // tiles, (tile + 1) * rows // tiles
        halves_tile(
            high - low, a + 4 * low * a_row * pitch, a_row * pitch, pitch, sums + 4 * low * between,
            between, matrix, k // 2, kept, c + 4 * low * a_row * total, a_row * total, total,
            n // 2, bias, slope, lone,
        )  # fmt: skip


@inner
def multiply_halves(
    a: int, pitch: int, k: int, blocks: Any, rest: Any, b: int, panels: Any, n: int, c: int,
    total: int, endings: Any, room: int,
) -> None:  # fmt: skip
    """Compute rows of prelu(A @ B + bias), for some panels of both halves of B.

    Parameters
    ----------
    a, c : int
        Addresses of the first rows of A, with `pitch` numbers from one to the next, and of C
        (rows, total).
    blocks : tuple of int
        Which rows are pairs, a row and the one behind it: in so many blocks, which begin so many
        rows apart, there are so many pairs, so many rows apart.
    rest : tuple of int
        Which rows have no neighbour: the first, how many, and how many rows apart.
    b : int
        Address of `pack_halves` of B (K, N).
    panels : (int, int)
        First and last + 1, of N / 2.
    endings : (int, int)
        Addresses of the bias and of the slopes (N,).
    room : int
        Address of `room_of` numbers.
    """
    count, block_step, pairs, pair_step = blocks
    first, alone, step = rest
    between, sums = 4 * _numbers_of_pair(k), room + 4 * KEPT
    last = sums + count * pairs * between
    for block in range(count):
        at, to = a + 4 * block * block_step * pitch, sums + block * pairs * between
        combine(at, 4 * pair_step * pitch, 4 * pitch, k, pairs, False, to)
    combine(a + 4 * first * pitch, 4 * step * pitch, 0, k, alone, True, last)
    for panel in range(panels[0], panels[1]):
        left = 4 * panel * TILE_COLUMNS
        bias, slope, to = endings[0] + left, endings[1] + left, c + left
        matrix = b + panel * PRODUCTS * 2 * k * TILE_COLUMNS
        for block in range(count):
            row = 4 * block * block_step
            multiply_run(
                pairs, a + row * pitch, pair_step, pitch, k, False, sums + block * pairs * between,
                matrix, room, to + row * total, total, n, bias, slope,
            )  # fmt: skip
        multiply_run(
            alone, a + 4 * first * pitch, step, pitch, k, True, last, matrix, room,
            to + 4 * first * total, total, n, bias, slope,
        )  # fmt: skip


def room_of(rows: int, k: int) -> int:
    """Return how many numbers of memory a product takes of so many upper rows by (K, N)."""
    return KEPT + rows * numbers_of_pair(k)
