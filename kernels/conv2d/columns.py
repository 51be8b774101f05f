"""What the three directions share: windows copied side by side, and how work is cut.

A "line" is one row of one output map; lines are numbered through the whole batch.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..checks import Array, ShapeError, check_array
from ..jit import kernel
from ..simd import LANES
from ..tile import TILE_COLUMNS
from ..windows import Pads, Pair

# Elements of copied windows that stay in the second-level cache, and the fewest rows of them
# that are worth a call of BLAS.
SCRATCH = 1 << 17
ROWS = 256


def check_weight(w: Array, groups: int, like: Array) -> None:
    """Raise unless w is (KH, KW, Cin / groups, Cout) and groups divides Cout."""
    check_array("w", w, ("KH", "KW", "Cin/groups", "Cout"), like=like)
    if groups < 1 or w.shape[3] % groups or w.size == 0:
        raise ShapeError(
            f"w: expected a number of output channels divisible by groups={groups}, "
            f"got shape {w.shape}"
        )


def blocks(lines: range, width: int, columns: int) -> Iterator[range]:
    """Cut lines of `width` windows, each of `columns` elements, into pieces that fit the cache."""
    step = max(1, max(ROWS, SCRATCH // max(1, columns)) // width)
    for low in range(lines.start, lines.stop, step):
        yield range(low, min(low + step, lines.stop))


def spread(n: int, parts: int) -> list[range]:
    """Cut `n` items into at most `parts` ranges of nearly equal size."""
    parts = max(1, min(n, parts))
    return [range(i * n // parts, (i + 1) * n // parts) for i in range(parts)]


def no_copy(kernel_size: Pair, stride: Pair, pads: Pads) -> bool:
    """Return whether every window is one pixel and every pixel a window: x itself will do."""
    return kernel_size == (1, 1) == stride and not any(pads)


def fits_tile(x: Array, n_in: int, n_out: int, groups: int) -> bool:
    """Tell whether the register tile pays: float32, and channels of a group that fill half of it.

    `n_in` channels of x make, with weights or gradients, sums for `n_out` channels.
    """
    filled = 2 * n_out >= TILE_COLUMNS and (groups == 1 or n_in >= LANES)
    return x.dtype == np.float32 and filled


def group_channels(cin: int, cout: int, groups: int) -> Iterator[tuple[range, range]]:
    """Go through the groups: which channels of x and of y are its own."""
    cin, cout = cin // groups, cout // groups
    for g in range(groups):
        yield range(g * cin, (g + 1) * cin), range(g * cout, (g + 1) * cout)


def window_view(x: Array, kernel_size: Pair, size: Pair, stride: Pair, dilation: Pair) -> Array:
    """View a padded x (N, H, W, C) as its windows (N, OH, OW, KH, KW, C), without a copy."""
    n, h, w, c = x.strides
    strides = (n, h * stride[0], w * stride[1], h * dilation[0], w * dilation[1], c)
    shape = (len(x), *size, *kernel_size, x.shape[3])
    return np.lib.stride_tricks.as_strided(x, shape, strides)


@kernel
def copy_windows(
    x: Array,
    columns: Array,
    first_line: int,
    first_ky: int,
    first_channel: int,
    size: Pair,
    stride: Pair,
    pads: Pads,
    dilation: Pair,
) -> None:
    """x (N, H, W, C) -> columns (lines, OW, KH, KW, channels): im2col of a few lines.

    Lines, kernel rows and channels start where told; `columns` says how many there are.
    With all channels and no dilation a kernel row is one run of contiguous numbers.
    """
    n_lines, ow, n_ky, kw, channels = columns.shape
    whole_row = dilation[1] == 1 and channels == x.shape[3]
    n_runs, run = (1, kw * channels) if whole_row else (kw, channels)
    flat = columns.reshape(n_lines, ow, n_ky, kw * channels)
    maps = x.reshape(x.shape[0], x.shape[1], x.shape[2] * x.shape[3])
    end = maps.shape[2]
    for line in range(n_lines):
        n, oy = (first_line + line) // size[0], (first_line + line) % size[0]
        for ky in range(n_ky):
            iy = oy * stride[0] + (first_ky + ky) * dilation[0] - pads[0]
            if not 0 <= iy < x.shape[1]:
                flat[line, :, ky] = 0
                continue
            source = maps[n, iy]
            for ox in range(ow):
                target = flat[line, ox, ky]
                for i in range(n_runs):
                    pixel = ox * stride[1] + i * dilation[1] - pads[2]
                    start = pixel * x.shape[3] + first_channel
                    # Where the run leaves the map on the left or right there are zeros.
                    low = min(max(0, -start), run)
                    high = max(low, min(run, end - start))
                    part = target[i * run : (i + 1) * run]
                    if low > 0 or high < run:
                        part[:] = 0
                    to, of = part[low:high], source[start + low : start + high]
                    for j in range(to.size):  # slice assignment is several times slower
                        to[j] = of[j]


@kernel
def add_windows(
    columns: Array,
    dx: Array,
    first_line: int,
    first_channel: int,
    size: Pair,
    stride: Pair,
    pads: Pads,
    dilation: Pair,
) -> None:
    """Columns (lines, OW, KH, KW, channels): adds to dx (N, H, W, C); col2im of a few lines."""
    n_lines, ow, n_ky, kw, channels = columns.shape
    whole_row = dilation[1] == 1 and channels == dx.shape[3]
    n_runs, run = (1, kw * channels) if whole_row else (kw, channels)
    flat = columns.reshape(n_lines, ow, n_ky, kw * channels)
    maps = dx.reshape(dx.shape[0], dx.shape[1], dx.shape[2] * dx.shape[3])
    end = maps.shape[2]
    for line in range(n_lines):
        n, oy = (first_line + line) // size[0], (first_line + line) % size[0]
        for ky in range(n_ky):
            iy = oy * stride[0] + ky * dilation[0] - pads[0]
            if not 0 <= iy < dx.shape[1]:
                continue
            target = maps[n, iy]
            for ox in range(ow):
                source = flat[line, ox, ky]
                for i in range(n_runs):
                    pixel = ox * stride[1] + i * dilation[1] - pads[2]
                    start = pixel * dx.shape[3] + first_channel
                    low = min(max(0, -start), run)
                    high = max(low, min(run, end - start))
                    to = target[start + low : start + high]
                    of = source[i * run + low : i * run + high]
                    for j in range(to.size):
                        to[j] += of[j]
