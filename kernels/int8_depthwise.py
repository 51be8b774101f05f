"""8-bit depthwise convolution: every channel of codes has a kernel of its own.

    acc = bias[c] + sum over ky, kx of x[n, oy*s + ky - top, ox*s + kx - left, c] * w[ky, kx, c]

x (N, H, W, C) uint8 codes, w (KH, KW, C) int8 with a scale per channel, bias (C,) int32, which
holds the input's zero point (`int8.quantise_bias`); then as in `int8_gemm`: scale, slope, rint, the
output's zero point. Pixels outside the map are codes `zero_in`: the real number 0.

| rung    | the one idea                                                                     |
|---------|----------------------------------------------------------------------------------|
| naive   | nine products per output, one test for the border per product                    |
| numpy   | one shifted slice of the padded input per tap                                    |
| widened | channels innermost: a row of sums that the compiler turns into vectors           |
| avx2    | a window slides through registers, 32 channels wide; pixels outside by address   |
| vnni    | the same, 64 channels wide; one instruction adds up a column of the window       |

All give the same bits; all but the first two run on all threads. The last two are for 3x3 kernels
with stride 1 or 2 along a row and at least 32 or 64 channels, and run the loops of widened for
others. A last block of fewer channels is moved back over channels that are done already.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .checks import Array, ShapeError
from .int8.arithmetic import code_of, requantise, requantised, scaled
from .int8.checks import check_factors, check_integers, check_zero
from .int8.taps import BLOCKS, TAPS, slide_avx2, slide_vnni
from .jit import Parallel, chunks, exact, parallel, prange
from .ladder import Ladder
from .memory import empty
from .simd import ISA, VNNI, address
from .windows import Pads, Pair, output_size, padded, shifted

GRAIN = 1 << 15  # products that make a chunk worth a thread
VNNI_BLOCK, AVX2_BLOCK = BLOCKS["vnni"], BLOCKS["avx2"]


def check(
    x: Array, w: Array, bias: Array, scale: Array, slope: Array, *, stride: Pair, pads: Pads,
    zero_in: int, zero: int,
) -> None:  # fmt: skip
    """Raise unless x is (N, H, W, C) uint8, w (KH, KW, C) int8, the rest (C,), and windows fit."""
    check_integers("x", x, np.uint8, ("N", "H", "W", "C"))
    check_integers("w", w, np.int8, ("KH", "KW", x.shape[3]))
    if not x.size:
        raise ShapeError(f"x: expected at least one pixel and channel, got shape {x.shape}")
    check_factors(bias, scale, slope, x.shape[3], zero)
    check_zero("zero_in", zero_in)
    output_size(_pair(x.shape[1:3]), _pair(w.shape[:2]), stride=stride, pads=pads)


def _pair(size: tuple[int, ...]) -> Pair:
    return size[0], size[1]


def _result(x: Array, w: Array, stride: Pair, pads: Pads) -> Array:
    size = output_size(_pair(x.shape[1:3]), _pair(w.shape[:2]), stride=stride, pads=pads)
    return empty((len(x), *size, x.shape[3]), np.uint8)


def forward_naive(
    x: Array, w: Array, bias: Array, scale: Array, slope: Array, *, stride: Pair, pads: Pads,
    zero_in: int, zero: int,
) -> Array:  # fmt: skip
    """Take one product after the other; ask for each whether its pixel is inside the map."""
    y = _result(x, w, stride, pads)
    naive_loop(x, w, bias, scale, slope, y, *stride, pads[0], pads[2], zero_in, zero)
    return y


@exact
def naive_loop(
    x: Array, w: Array, bias: Array, scale: Array, slope: Array, y: Array,
    stride_y: int, stride_x: int, top: int, left: int, zero_in: int, zero: int,
) -> None:  # fmt: skip
    """See the module's docstring."""
    _, height, width, _ = x.shape
    for n in range(y.shape[0]):
        for oy in range(y.shape[1]):
            for ox in range(y.shape[2]):
                for c in range(y.shape[3]):
                    acc = np.int64(bias[c])
                    for ky in range(w.shape[0]):
                        for kx in range(w.shape[1]):
                            iy, ix = oy * stride_y + ky - top, ox * stride_x + kx - left
                            code = np.int64(zero_in)
                            if 0 <= iy < height and 0 <= ix < width:
                                code = np.int64(x[n, iy, ix, c])
                            acc += code * w[ky, kx, c]
                    y[n, oy, ox, c] = code_of(scaled(np.int32(acc), scale[c], slope[c]), zero)


def forward_numpy(
    x: Array, w: Array, bias: Array, scale: Array, slope: Array, *, stride: Pair, pads: Pads,
    zero_in: int, zero: int,
) -> Array:  # fmt: skip
    """Add one shifted slice of the padded input per tap, in int32."""
    size, k = _result(x, w, stride, pads).shape[1:3], _pair(w.shape[:2])
    wide = padded(x, k, stride, pads, _pair(size), zero_in).astype(np.int32)
    taps = w.astype(np.int32)
    acc = bias + sum(
        shifted(wide, p, q, stride, _pair(size)) * taps[p, q]
        for p in range(k[0])
        for q in range(k[1])
    )
    return requantised(acc, scale, slope, zero, as_float=False)


@exact
def convolve_widened(
    x: Array, w: Array, bias: Array, scale: Array, slope: Array, border: Array, y: Array,
    stride_y: int, stride_x: int, top: int, left: int, zero: int, first: int, last: int,
) -> None:  # fmt: skip
    """Compute output rows first .. last - 1, counted through all maps; see `convolve`."""
    height, width = x.shape[1:3]
    sums = np.empty(y.shape[3], np.int32)
    for row in range(first, last):
        n, oy = row // y.shape[1], row % y.shape[1]
        for ox in range(y.shape[2]):
            sums[:] = bias
            for ky in range(w.shape[0]):
                for kx in range(w.shape[1]):
                    iy, ix = oy * stride_y + ky - top, ox * stride_x + kx - left
                    inside = 0 <= iy < height and 0 <= ix < width
                    pixel, tap = x[n, iy, ix] if inside else border, w[ky, kx]
                    for c in range(sums.size):
                        sums[c] += np.int32(pixel[c]) * np.int32(tap[c])
            requantise(sums, scale, slope, zero, y[n, oy, ox])


@exact
def convolve_avx2(
    x: Array, w: Array, bias: Array, scale: Array, slope: Array, border: Array, y: Array,
    stride_y: int, stride_x: int, top: int, left: int, zero: int, first: int, last: int,
) -> None:  # fmt: skip
    """As `convolve_widened`, by windows in the registers of AVX2."""
    c_all, block = y.shape[3], AVX2_BLOCK
    if w.shape[0] != TAPS or w.shape[1] != TAPS or stride_x > 2 or c_all < block:
        convolve_widened(
            x, w, bias, scale, slope, border, y, stride_y, stride_x, top, left, zero, first, last
        )  # fmt: skip
        return
    oh, row = y.shape[1], first
    while row < last:
        n, oy = row // oh, row % oh
        stop = min(oh, oy + last - row)
        for start in range(0, c_all, block):
            c = min(start, c_all - block)
            slide_avx2(
                address(x[n]) + c, x.shape[2] * c_all, c_all, x.shape[1], x.shape[2],
                address(border) + c, address(w) + c,
                address(bias) + 4 * c, address(scale) + 4 * c, address(slope) + 4 * c,
                address(y[n]) + c, y.shape[2] * c_all, y.shape[2],
                stride_y, top, left, oy, stop, zero, stride_x,
            )  # fmt: skip
        row += stop - oy


@exact
def convolve_vnni(
    x: Array, w: Array, bias: Array, scale: Array, slope: Array, border: Array, y: Array,
    stride_y: int, stride_x: int, top: int, left: int, zero: int, first: int, last: int,
) -> None:  # fmt: skip
    """As `convolve_widened`, by windows in the registers of AVX-512."""
    c_all, block = y.shape[3], VNNI_BLOCK
    if w.shape[0] != TAPS or w.shape[1] != TAPS or stride_x > 2 or c_all < block:
        convolve_widened(
            x, w, bias, scale, slope, border, y, stride_y, stride_x, top, left, zero, first, last
        )  # fmt: skip
        return
    oh, row = y.shape[1], first
    while row < last:
        n, oy = row // oh, row % oh
        stop = min(oh, oy + last - row)
        for start in range(0, c_all, block):
            c = min(start, c_all - block)
            slide_vnni(
                address(x[n]) + c, x.shape[2] * c_all, c_all, x.shape[1], x.shape[2],
                address(border) + c, address(w) + c,
                address(bias) + 4 * c, address(scale) + 4 * c, address(slope) + 4 * c,
                address(y[n]) + c, y.shape[2] * c_all, y.shape[2],
                stride_y, top, left, oy, stop, zero, stride_x,
            )  # fmt: skip
        row += stop - oy


@parallel
def widened_loop(
    x: Array, w: Array, bias: Array, scale: Array, slope: Array, border: Array, y: Array,
    stride: Pair, corner: Pair, zero: int, n_chunks: int,
) -> None:  # fmt: skip
    """Cut the output rows of all maps into chunks, and run `convolve_widened` on each."""
    rows = y.shape[0] * y.shape[1]
    for chunk in prange(n_chunks):
        convolve_widened(
            x, w, bias, scale, slope, border, y, stride[0], stride[1], corner[0], corner[1], zero,
            chunk * rows // n_chunks, (chunk + 1) * rows // n_chunks,
        )  # fmt: skip


@parallel
def avx2_loop(
    x: Array, w: Array, bias: Array, scale: Array, slope: Array, border: Array, y: Array,
    stride: Pair, corner: Pair, zero: int, n_chunks: int,
) -> None:  # fmt: skip
    """Cut the output rows of all maps into chunks, and run `convolve_avx2` on each."""
    rows = y.shape[0] * y.shape[1]
    for chunk in prange(n_chunks):
        convolve_avx2(
            x, w, bias, scale, slope, border, y, stride[0], stride[1], corner[0], corner[1], zero,
            chunk * rows // n_chunks, (chunk + 1) * rows // n_chunks,
        )  # fmt: skip


@parallel
def vnni_loop(
    x: Array, w: Array, bias: Array, scale: Array, slope: Array, border: Array, y: Array,
    stride: Pair, corner: Pair, zero: int, n_chunks: int,
) -> None:  # fmt: skip
    """Cut the output rows of all maps into chunks, and run `convolve_vnni` on each."""
    rows = y.shape[0] * y.shape[1]
    for chunk in prange(n_chunks):
        convolve_vnni(
            x, w, bias, scale, slope, border, y, stride[0], stride[1], corner[0], corner[1], zero,
            chunk * rows // n_chunks, (chunk + 1) * rows // n_chunks,
        )  # fmt: skip


def _run(
    loop: Parallel[..., None], x: Array, w: Array, bias: Array, scale: Array, slope: Array,
    stride: Pair, pads: Pads, zero_in: int, zero: int,
) -> Array:  # fmt: skip
    y = _result(x, w, stride, pads)
    border = np.full(x.shape[3], zero_in, np.uint8)
    per_row = y.shape[2] * y.shape[3] * w.shape[0] * w.shape[1]
    n_chunks = chunks(y.shape[0] * y.shape[1], max(1, GRAIN // per_row))
    loop(x, w, bias, scale, slope, border, y, stride, (pads[0], pads[2]), zero, n_chunks)
    return y


def forward_widened(
    x: Array, w: Array, bias: Array, scale: Array, slope: Array, *, stride: Pair, pads: Pads,
    zero_in: int, zero: int,
) -> Array:  # fmt: skip
    """Put channels innermost: a row of sums, to which the compiler adds products by vectors."""
    return _run(widened_loop, x, w, bias, scale, slope, stride, pads, zero_in, zero)


def forward_avx2(
    x: Array, w: Array, bias: Array, scale: Array, slope: Array, *, stride: Pair, pads: Pads,
    zero_in: int, zero: int,
) -> Array:  # fmt: skip
    """Slide a window of 32 channels through registers; bytes are widened to 16 bits."""
    return _run(avx2_loop, x, w, bias, scale, slope, stride, pads, zero_in, zero)


def forward_vnni(
    x: Array, w: Array, bias: Array, scale: Array, slope: Array, *, stride: Pair, pads: Pads,
    zero_in: int, zero: int,
) -> Array:  # fmt: skip
    """Slide a window of 64 channels through registers; an instruction adds up a column of it."""
    return _run(vnni_loop, x, w, bias, scale, slope, stride, pads, zero_in, zero)


rungs: dict[str, Callable[..., Array]] = {
    "naive": forward_naive,
    "numpy": forward_numpy,
    "widened": forward_widened,
}
# What a plan calls inside its own parallel loop: the fastest that this CPU can run.
convolve: Any = convolve_widened
if ISA in ("avx2", "avx512"):
    rungs["avx2"] = forward_avx2
    convolve = convolve_avx2
if VNNI:
    rungs["vnni"] = forward_vnni
    convolve = convolve_vnni

forward = Ladder("int8_depthwise.forward", check=check, **rungs)
