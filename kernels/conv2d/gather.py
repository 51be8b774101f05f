"""How the rung simd lays its operands out: copied windows, panels of weights and gradients.

The register tile (`tile.dot_tile`) is fast where its operands lie close together and are in
cache. So the windows of some pixels are copied side by side (im2col) into scratch memory that
stays in the second-level cache, and the other operand into panels of as many columns as the
tile has. Everything here works with whole vectors: what they write past the end of a run is
written again by the next run, or is slack at the end of the scratch.
"""

from __future__ import annotations

from typing import NamedTuple

from ..checks import Array
from ..jit import chunks, kernel, parallel, prange
from ..memory import empty
from ..simd import LANES, load, store, zero
from ..tile import TILE_COLUMNS
from ..windows import Pads, Pair


class Windows(NamedTuple):
    """Which numbers of a map (H, W, C) make up the window of an output pixel.

    Attributes
    ----------
    oh, ow : int
        Height and width of the output map.
    kh, kw, stride_y, stride_x, dilation_y, dilation_x : int
    top, left : int
        Row and column of the map where the first window starts; negative inside padding.
    first_channel, channels : int
        The channels that belong to it: those of a group.
    """

    oh: int
    ow: int
    kh: int
    kw: int
    stride_y: int
    stride_x: int
    dilation_y: int
    dilation_x: int
    top: int
    left: int
    first_channel: int
    channels: int

    @property
    def columns(self) -> int:
        """Numbers in one window."""
        return self.kh * self.kw * self.channels


def windows_of(
    size: Pair, kernel_size: Pair, stride: Pair, pads: Pads, dilation: Pair, g: int, channels: int
) -> Windows:
    """Return the windows of a forward pass, for group `g` of so many channels."""
    return Windows(
        oh=size[0],
        ow=size[1],
        kh=kernel_size[0],
        kw=kernel_size[1],
        stride_y=stride[0],
        stride_x=stride[1],
        dilation_y=dilation[0],
        dilation_x=dilation[1],
        top=-pads[0],
        left=-pads[2],
        first_channel=g * channels,
        channels=channels,
    )


@kernel
def copy_run(source: Array, start: int, count: int, target: Array, at: int) -> None:
    """Copy `count` numbers in whole vectors; one by one where those would leave the source."""
    if start + count + LANES > source.size:
        for i in range(count):
            target[at + i] = source[start + i]
        return
    of, to = source.ctypes.data + 4 * start, target.ctypes.data + 4 * at
    for i in range(0, 4 * count, 4 * LANES):
        store(load(of + i), to + i)


@kernel
def zero_run(count: int, target: Array, at: int) -> None:
    """Write `count` zeros, and a few more, in whole vectors."""
    to = target.ctypes.data + 4 * at
    for i in range(0, 4 * count, 4 * LANES):
        store(zero(), to + i)


@kernel
def gather(
    x: Array,
    windows: Windows,
    first_pixel: int,
    n_pixels: int,
    first_column: int,
    n_columns: int,
    target: Array,
    pitch: int,
) -> None:
    """Copy the windows of some output pixels side by side: im2col, `pitch` numbers per pixel.

    x (N, H, W, C) -> target (flat, n_pixels * pitch and one vector more). Pixels are numbered
    through the whole batch. `n_columns` of the numbers in a window are copied, which are in
    the order (KH, KW, channels).
    """
    _, height, width, channels = x.shape
    ow, kw = windows.ow, windows.kw
    flat = x.reshape(x.size)
    # With all channels and no dilation a kernel row is one run of contiguous numbers.
    whole = windows.dilation_x == 1 and windows.channels == channels
    per_row, run = (1, kw * channels) if whole else (kw, windows.channels)
    last_column = first_column + n_columns
    first_ky, last_ky = (
        first_column // (kw * windows.channels),
        (last_column - 1) // (kw * windows.channels),
    )
    row = first_pixel // ow
    ox = first_pixel - row * ow
    image = row // windows.oh
    oy = row - image * windows.oh
    for i in range(n_pixels):
        at = i * pitch
        for ky in range(first_ky, last_ky + 1):
            iy = oy * windows.stride_y + ky * windows.dilation_y + windows.top
            line = (image * height + iy) * width * channels
            for t in range(per_row):
                # The columns of this run that are asked for: low to high.
                column = (ky * per_row + t) * run
                low, high = max(0, first_column - column), min(run, last_column - column)
                if low >= high:
                    continue
                pixel = ox * windows.stride_x + t * windows.dilation_x + windows.left
                start = pixel * channels + windows.first_channel
                # Those of them inside the map: begin to end.
                begin, end = max(low, -start), min(high, width * channels - start)
                if iy < 0 or iy >= height or begin >= end:
                    zero_run(high - low, target, at)
                elif begin > low or end < high:
                    zero_run(begin - low, target, at)
                    copy_run(flat, line + start + begin, end - begin, target, at + begin - low)
                    zero_run(high - end, target, at + end - low)
                else:
                    copy_run(flat, line + start + low, high - low, target, at)
                at += high - low
        ox += 1
        if ox == ow:
            ox = 0
            oy += 1
            if oy == windows.oh:
                oy = 0
                image += 1


@kernel
def copy_panel(
    dy: Array, first_row: int, n_rows: int, column: int, end: int, target: Array, at: int
) -> None:
    """dy (rows, N) -> a panel (n_rows, TILE_COLUMNS), zeros from column `end` on."""
    count = min(TILE_COLUMNS, end - column)
    for i in range(n_rows):
        source, to = dy[first_row + i, column : column + count], target[at : at + TILE_COLUMNS]
        for j in range(source.size):
            to[j] = source[j]
        to[count:] = 0
        at += TILE_COLUMNS


def panels_of(w: Array) -> Array:
    """Copy weights (KH, KW, C, N), any strides, to panels (N / TILE_COLUMNS, K, TILE_COLUMNS).

    Rows of a panel lie side by side, whereas rows of `w` may be a multiple of 4,096 bytes
    apart, which makes them push each other out of the first-level cache.
    """
    k = w.shape[0] * w.shape[1] * w.shape[2]
    panels = empty((-(-w.shape[3] // TILE_COLUMNS), k, TILE_COLUMNS), w.dtype)
    pack_loop(w, panels, chunks(panels.shape[0] * w.shape[0] * w.shape[1]))
    return panels


@parallel
def pack_loop(w: Array, panels: Array, n_chunks: int) -> None:
    """Weights (KH, KW, C, N) -> panels (N / TILE_COLUMNS, KH * KW * C, TILE_COLUMNS)."""
    kh, kw, channels, n = w.shape
    transposed = w.strides[2] < w.strides[3]
    parts = panels.shape[0] * kh * kw
    for chunk in prange(n_chunks):
        for part in range(chunk * parts // n_chunks, (chunk + 1) * parts // n_chunks):
            panel, tap = part // (kh * kw), part % (kh * kw)
            low = panel * TILE_COLUMNS
            count = min(TILE_COLUMNS, n - low)
            # A block of channels at a time, so that cache lines are used up.
            for c in range(0, channels, 16):
                block = w[tap // kw, tap % kw, c : c + 16, low : low + count]
                out = panels[panel, tap * channels + c : tap * channels + c + block.shape[0]]
                out[:, count:] = 0
                if transposed:
                    for j in range(count):
                        for i in range(block.shape[0]):
                            out[i, j] = block[i, j]
                else:
                    for i in range(block.shape[0]):
                        for j in range(count):
                            out[i, j] = block[i, j]
