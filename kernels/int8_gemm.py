"""8-bit matrix product: y = requantised(bias + a @ w), the inner loop of 8-bit inference.

a (M, K) uint8 codes, w (K, N) int8 packed by `int8.pack`, bias (N,) int32 (which holds the input's
zero point, `int8.quantise_bias`), scale and slope (N,) float32, zero the output's zero point::

    acc = bias + a @ w                        # int32
    y = float32(acc) * scale
    y = y if y > 0 else y * slope             # slope 1: no activation
    code = clip(rint(y) + zero, 0, 255)       # or y itself, float32, with as_float

| rung    | the one idea                                                                     |
|---------|----------------------------------------------------------------------------------|
| naive   | one product after the other                                                      |
| numpy   | BLAS on float64, which adds integers of this size without error                  |
| widened | a row of 32 sums over columns, so that the compiler can use vectors; all threads |
| avx2    | a tile of sums in registers; bytes widened to 16 bits, products added in pairs   |
| vnni    | the same tile, larger; one instruction multiplies and adds 64 bytes              |

All give the same bits. A linear layer at the end of a network is this product with `as_float`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .checks import Array, ShapeError
from .int8.arithmetic import code_of, requantised, scaled
from .int8.checks import check_factors, check_integers
from .int8.packing import GROUP, PANEL, panels_shape, unpack
from .int8.tile import strip_avx2, strip_vnni
from .jit import MAX_CHUNKS, Parallel, exact, parallel, prange
from .ladder import Ladder
from .memory import empty
from .simd import ISA, VNNI, address

# Rows of a that stay in the second-level cache while the panels of weights pass by: bytes.
BLOCK = 1 << 17
# Products of a part worth a thread: about 10 microseconds.
PART = 1 << 20
ROWS = 14  # of the largest tile: parts are whole tiles high


def check(
    a: Array, panels: Array, bias: Array, scale: Array, slope: Array, *, zero: int,
    as_float: bool = False,
) -> None:  # fmt: skip
    """Raise unless a is (M, K) uint8, panels are of (K, N) int8, and the rest is (N,)."""
    check_integers("a", a, np.uint8, ("M", "K"))
    check_weights(panels, bias, scale, slope, a.shape[1], zero, as_float=as_float)


def check_weights(
    panels: Array, bias: Array, scale: Array, slope: Array, k: int, zero: int, *,
    as_float: bool = False,
) -> None:  # fmt: skip
    """Raise unless panels hold weights (K, N), with bias, scale and slope (N,)."""
    if k < 1:
        raise ShapeError(f"product: expected at least one number per row, got {k}")
    check_integers("bias", bias, np.int32, ("N",))
    check_integers("panels", panels, np.int8, panels_shape(k, bias.size))
    check_factors(bias, scale, slope, bias.size, zero, as_float=as_float)


def forward_naive(
    a: Array, panels: Array, bias: Array, scale: Array, slope: Array, *, zero: int,
    as_float: bool = False,
) -> Array:  # fmt: skip
    """Take one product after the other; each sum is finished before the next one starts."""
    y = result(a, bias, as_float=as_float)
    naive_loop(a, panels, bias, scale, slope, y, zero)
    return y


def result(a: Array, bias: Array, *, as_float: bool) -> Array:
    """Return room for codes, or for float32."""
    return empty((len(a), bias.size), np.float32 if as_float else np.uint8)


@exact
def naive_loop(
    a: Array, panels: Array, bias: Array, scale: Array, slope: Array, y: Array, zero: int
) -> None:
    """See the module's docstring; the last group of a row is its last four numbers."""
    k = a.shape[1]
    for i in range(y.shape[0]):
        for j in range(y.shape[1]):
            acc = np.int64(bias[j])
            for group in range(panels.shape[1]):
                start = max(0, min(GROUP * group, k - GROUP))
                for q in range(min(GROUP, k)):
                    acc += np.int64(a[i, start + q]) * panels[j // PANEL, group, j % PANEL, q]
            real = scaled(np.int32(acc), scale[j], slope[j])
            if y.itemsize == 4:
                y[i, j] = real
            else:
                y[i, j] = code_of(real, zero)


def forward_numpy(
    a: Array, panels: Array, bias: Array, scale: Array, slope: Array, *, zero: int,
    as_float: bool = False,
) -> Array:  # fmt: skip
    """Let BLAS multiply float64 numbers: integers below 2 ** 53 are added without error."""
    w = unpack(panels, a.shape[1], bias.size)
    acc = (a.astype(np.float64) @ w.astype(np.float64) + bias).astype(np.int32)
    return requantised(acc, scale, slope, zero, as_float=as_float)


@exact
def multiply_widened(
    a: Array, panels: Array, bias: Array, scale: Array, slope: Array, y: Array, zero: int,
    top: int, bottom: int, left: int, right: int,
) -> None:  # fmt: skip
    """Compute rows top .. bottom - 1 of panels left .. right - 1 of y (M, N); see `multiply`."""
    k, n = a.shape[1], y.shape[1]
    sums = np.empty(PANEL, np.int32)
    for i in range(top, bottom):
        row = a[i]
        for panel in range(left, right):
            first = panel * PANEL
            count = min(PANEL, n - first)
            sums[:] = 0
            for group in range(panels.shape[1]):
                start = max(0, min(GROUP * group, k - GROUP))
                w = panels[panel, group].reshape(PANEL * GROUP)
                for q in range(min(GROUP, k)):
                    factor = np.int32(row[start + q])
                    for lane in range(PANEL):
                        sums[lane] += factor * np.int32(w[GROUP * lane + q])
            out, start = y[i, first : first + count], first
            own_bias, own_scale = bias[first : first + count], scale[first : first + count]
            own_slope = slope[first : first + count]
            for lane in range(count):
                acc = np.int32(sums[lane] + own_bias[lane])
                real = scaled(acc, own_scale[lane], own_slope[lane])
                if y.itemsize == 4:
                    out[lane] = real
                else:
                    out[lane] = code_of(real, zero)


@exact
def multiply_avx2(
    a: Array, panels: Array, bias: Array, scale: Array, slope: Array, y: Array, zero: int,
    top: int, bottom: int, left: int, right: int,
) -> None:  # fmt: skip
    """As `multiply_widened`, by tiles of AVX2."""
    rows = rows_of_block(a.shape[1])
    for i in range(top, bottom, rows):
        for panel in range(left, right):
            j = panel * PANEL
            strip_avx2(
                address(a) + i * a.shape[1], a.shape[1], address(panels[panel]),
                address(y) + y.itemsize * (i * y.shape[1] + j), y.itemsize * y.shape[1],
                max(a.shape[1], GROUP), min(rows, bottom - i), y.shape[1] - j,
                address(bias) + 4 * j, address(scale) + 4 * j, address(slope) + 4 * j,
                zero, y.itemsize == 4,
            )  # fmt: skip


@exact
def multiply_vnni(
    a: Array, panels: Array, bias: Array, scale: Array, slope: Array, y: Array, zero: int,
    top: int, bottom: int, left: int, right: int,
) -> None:  # fmt: skip
    """As `multiply_widened`, by tiles of VNNI."""
    rows = rows_of_block(a.shape[1])
    for i in range(top, bottom, rows):
        for panel in range(left, right):
            j = panel * PANEL
            strip_vnni(
                address(a) + i * a.shape[1], a.shape[1], address(panels[panel]),
                address(y) + y.itemsize * (i * y.shape[1] + j), y.itemsize * y.shape[1],
                max(a.shape[1], GROUP), min(rows, bottom - i), y.shape[1] - j,
                address(bias) + 4 * j, address(scale) + 4 * j, address(slope) + 4 * j,
                zero, y.itemsize == 4,
            )  # fmt: skip


@exact
def rows_of_block(k: int) -> int:
    """Return how many rows of k bytes to take at a time: their panel of weights stays in L1."""
    return max(1, BLOCK // k // ROWS) * ROWS


def parts_of(m: int, k: int, n: int) -> tuple[int, int]:
    """Return into how many parts to cut rows and panels of an (m, n) product of length k."""
    wanted = max(1, min(MAX_CHUNKS, m * k * n // PART))
    by_row = max(1, min(wanted, -(-m // ROWS) // 2))
    return by_row, max(1, min(wanted // by_row, -(-n // PANEL)))


@parallel
def widened_loop(
    a: Array, panels: Array, bias: Array, scale: Array, slope: Array, y: Array, zero: int,
    by_row: int, by_column: int,
) -> None:  # fmt: skip
    """Cut y into by_row * by_column parts, and run `multiply_widened` on each."""
    tiles, n_panels = -(-y.shape[0] // ROWS), panels.shape[0]
    for part in prange(by_row * by_column):
        row, column = part // by_column, part % by_column
        top = row * tiles // by_row * ROWS
        bottom = min(y.shape[0], (row + 1) * tiles // by_row * ROWS)
        left, right = column * n_panels // by_column, (column + 1) * n_panels // by_column
        multiply_widened(a, panels, bias, scale, slope, y, zero, top, bottom, left, right)


@parallel
def avx2_loop(
    a: Array, panels: Array, bias: Array, scale: Array, slope: Array, y: Array, zero: int,
    by_row: int, by_column: int,
) -> None:  # fmt: skip
    """Cut y into by_row * by_column parts, and run `multiply_avx2` on each."""
    tiles, n_panels = -(-y.shape[0] // ROWS), panels.shape[0]
    for part in prange(by_row * by_column):
        row, column = part // by_column, part % by_column
        top = row * tiles // by_row * ROWS
        bottom = min(y.shape[0], (row + 1) * tiles // by_row * ROWS)
        left, right = column * n_panels // by_column, (column + 1) * n_panels // by_column
        multiply_avx2(a, panels, bias, scale, slope, y, zero, top, bottom, left, right)


@parallel
def vnni_loop(
    a: Array, panels: Array, bias: Array, scale: Array, slope: Array, y: Array, zero: int,
    by_row: int, by_column: int,
) -> None:  # fmt: skip
    """Cut y into by_row * by_column parts, and run `multiply_vnni` on each."""
    tiles, n_panels = -(-y.shape[0] // ROWS), panels.shape[0]
    for part in prange(by_row * by_column):
        row, column = part // by_column, part % by_column
        top = row * tiles // by_row * ROWS
        bottom = min(y.shape[0], (row + 1) * tiles // by_row * ROWS)
        left, right = column * n_panels // by_column, (column + 1) * n_panels // by_column
        multiply_vnni(a, panels, bias, scale, slope, y, zero, top, bottom, left, right)


def with_room(a: Array) -> Array:
    """Return a, or a copy with rows of four where they are shorter: a tile reads four bytes."""
    if a.shape[1] >= GROUP:
        return a
    wider = np.zeros((len(a), GROUP), a.dtype)
    wider[:, : a.shape[1]] = a
    return wider


def _run(
    loop: Parallel[..., None], a: Array, panels: Array, bias: Array, scale: Array, slope: Array,
    zero: int, as_float: bool,
) -> Array:  # fmt: skip
    y = result(a, bias, as_float=as_float)
    parts = parts_of(a.shape[0], a.shape[1], bias.size)
    loop(with_room(a), panels, bias, scale, slope, y, zero, *parts)
    return y


def forward_widened(
    a: Array, panels: Array, bias: Array, scale: Array, slope: Array, *, zero: int,
    as_float: bool = False,
) -> Array:  # fmt: skip
    """Keep 32 sums side by side, one per column: loops that a compiler turns into vectors."""
    return _run(widened_loop, a, panels, bias, scale, slope, zero, as_float)


def forward_avx2(
    a: Array, panels: Array, bias: Array, scale: Array, slope: Array, *, zero: int,
    as_float: bool = False,
) -> Array:  # fmt: skip
    """Keep a tile of 4 x 16 sums in registers; widen bytes to 16 bits, add products in pairs."""
    return _run(avx2_loop, a, panels, bias, scale, slope, zero, as_float)


def forward_vnni(
    a: Array, panels: Array, bias: Array, scale: Array, slope: Array, *, zero: int,
    as_float: bool = False,
) -> Array:  # fmt: skip
    """Keep a tile of 14 x 32 sums; one instruction adds four products to each of 16 of them."""
    return _run(vnni_loop, a, panels, bias, scale, slope, zero, as_float)


rungs: dict[str, Callable[..., Array]] = {
    "naive": forward_naive,
    "numpy": forward_numpy,
    "widened": forward_widened,
}
# What a plan calls inside its own parallel loop: the fastest that this CPU can run.
multiply: Any = multiply_widened
if ISA in ("avx2", "avx512"):
    rungs["avx2"] = forward_avx2
    multiply = multiply_avx2
if VNNI:
    rungs["vnni"] = forward_vnni
    multiply = multiply_vnni

forward = Ladder("int8_gemm.forward", check=check, **rungs)
