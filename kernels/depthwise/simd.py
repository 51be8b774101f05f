"""Depthwise 3x3 convolution with explicit vectors: the rungs vectors and simd.

The loops are the same, and cut into tasks in the second. Other kernels, strides and float64 run
those of `rows`.
"""

from __future__ import annotations

import numpy as np

from ..checks import Array
from ..jit import kernel, parallel, prange
from ..memory import empty, empty_like, zeros
from ..simd import is_far
from ..windows import Pads, Pair
from .plain import new_output
from .rows import cut, slide_back, slide_rows, sum_rows
from .sliding import ROOM, backward_lines, forward_lines, padded
from .striding import backward_lines_by_2, forward_lines_by_2, pairs

PART = 64  # channels that a task has at least, if there are so many; a multiple of any LANES


def applies(x: Array, w: Array, stride: Pair) -> bool:
    """Tell whether the sliding window is made for this: float32, 3x3, stride 1."""
    return x.dtype == np.float32 and w.shape[:2] == (3, 3) and tuple(stride) == (1, 1)


def applies_by_2(x: Array, w: Array, stride: Pair) -> bool:
    """Tell whether `striding` is made for this: float32, 3x3, stride 2."""
    return x.dtype == np.float32 and w.shape[:2] == (3, 3) and tuple(stride) == (2, 2)


def new_sums(n_chunks: int, w: Array) -> Array:
    """Return a gradient of `padded` weights for each chunk, all zeros."""
    return zeros((n_chunks, *w.shape[:2], w.shape[2] + ROOM), np.float32)


def add_up(sums: Array) -> Array:
    """Add the chunks' gradients in order: (chunks, 3, 3, C + ROOM) -> (3, 3, C)."""
    total = sums.sum(axis=0, dtype=np.float64)[..., :-ROOM]
    return np.ascontiguousarray(total, np.float32)


def forward_vectors(
    x: Array, w: Array, *, stride: Pair = (1, 1), pads: Pads = (0, 0, 0, 0)
) -> Array:
    """Explicit vectors: nine weights and a sliding window of nine pixels stay in registers.

    Saves: the copy of a row, and 15 of the 18 loads of an output: three new pixels remain.
    Measure: GFLOP/s of one thread against the peak of one; GB/s once arrays leave the cache.
    """
    return _forward(x, w, stride, pads, threads=False)


def forward_simd(x: Array, w: Array, *, stride: Pair = (1, 1), pads: Pads = (0, 0, 0, 0)) -> Array:
    """Threads: rows of the maps are cut into tasks by shape alone, and run side by side.

    Saves: time only. Measure: the gain against the number of threads. Arrays in cache gain all of
    it; large ones share the way to memory, which one thread may fill by itself.
    """
    return _forward(x, w, stride, pads, threads=True)


def _forward(x: Array, w: Array, stride: Pair, pads: Pads, *, threads: bool) -> Array:
    by_2 = applies_by_2(x, w, stride)
    if not by_2 and not applies(x, w, stride):
        return slide_rows(x, w, stride, pads, threads=threads)
    y, before = new_output(x, w, stride, pads), (pads[0], pads[2])
    n_chunks = cut(y.shape[0] * y.shape[1], 9 * y.size) if threads else 1
    if by_2 and threads:
        forward_loop_by_2(x, padded(w), y, before, n_chunks)
    elif by_2:
        forward_lines_by_2(x, padded(w), y, 0, y.shape[0] * y.shape[1], before)
    elif not threads:
        forward_lines(x, padded(w), y, 0, y.shape[0] * y.shape[1], before, is_far(y))
    else:
        forward_loop(x, padded(w), y, before, n_chunks, is_far(y))
    return y


@parallel
def forward_loop(x: Array, w: Array, y: Array, before: Pair, n_chunks: int, far: bool) -> None:
    """x (N, H, W, C), w (3, 3, C + ROOM) -> y (N, OH, OW, C); before = (top, left) padding."""
    lines = y.shape[0] * y.shape[1]
    for chunk in prange(n_chunks):
        low, high = chunk * lines // n_chunks, (chunk + 1) * lines // n_chunks
        forward_lines(x, w, y, low, high, before, far)


@parallel
def forward_loop_by_2(x: Array, w: Array, y: Array, before: Pair, n_chunks: int) -> None:
    """Do the same at stride 2."""
    lines = y.shape[0] * y.shape[1]
    for chunk in prange(n_chunks):
        low, high = chunk * lines // n_chunks, (chunk + 1) * lines // n_chunks
        forward_lines_by_2(x, w, y, low, high, before)


# --- each gradient by itself ----------------------------------------------------------


def input_vectors(
    dy: Array, w: Array, *, size: Pair, stride: Pair = (1, 1), pads: Pads = (0, 0, 0, 0)
) -> Array:
    """Explicit vectors: forward's window, slid over dy with the turned kernel in registers.

    Saves and measure: as forward. At another stride than 1 rows runs.
    """
    return _input(dy, w, size, stride, pads, threads=False)


def input_simd(
    dy: Array, w: Array, *, size: Pair, stride: Pair = (1, 1), pads: Pads = (0, 0, 0, 0)
) -> Array:
    """Threads: as forward.

    Saves and measure: as forward.
    """
    return _input(dy, w, size, stride, pads, threads=True)


def _input(dy: Array, w: Array, size: Pair, stride: Pair, pads: Pads, *, threads: bool) -> Array:
    if not applies(dy, w, stride) or max(pads[0], pads[2]) > 2:
        return slide_back(dy, w, size, stride, pads, threads=threads)
    dx = empty((len(dy), *size, w.shape[2]), dy.dtype)
    n_chunks = cut(dx.shape[0] * dx.shape[1], 9 * dx.size) if threads else 1
    turned = padded(np.ascontiguousarray(w[::-1, ::-1]))
    before = 2 - pads[0], 2 - pads[2]
    if threads:
        forward_loop(dy, turned, dx, before, n_chunks, is_far(dx))
    else:
        forward_lines(dy, turned, dx, 0, dx.shape[0] * dx.shape[1], before, is_far(dx))
    return dx


def weight_vectors(
    dy: Array, x: Array, *, kernel_size: Pair, stride: Pair = (1, 1), pads: Pads = (0, 0, 0, 0)
) -> Array:
    """Explicit vectors: the sums stay in registers, in the pass that makes both gradients.

    Saves: the load and store of the sums for each product. Measure: against `backward`, which
    is the same pass: the gradient of x comes with it for half the products, and is dropped here.
    """
    w = np.zeros((*kernel_size, x.shape[3]), x.dtype)
    return _backward(dy, x, w, stride, pads, threads=False)[1]


def weight_simd(
    dy: Array, x: Array, *, kernel_size: Pair, stride: Pair = (1, 1), pads: Pads = (0, 0, 0, 0)
) -> Array:
    """Threads: tasks cut by shape alone, each with sums of its own, which are added in order.

    Saves and measure: as vectors.
    """
    w = np.zeros((*kernel_size, x.shape[3]), x.dtype)
    return _backward(dy, x, w, stride, pads, threads=True)[1]


# --- both gradients -------------------------------------------------------------------


def backward_vectors(
    dy: Array, x: Array, w: Array, *, stride: Pair = (1, 1), pads: Pads = (0, 0, 0, 0)
) -> tuple[Array, Array]:
    """Explicit vectors: one window on dy makes both gradients, dw's nine sums in registers.

    Saves: a pass over dy, and the load and store of dw's sums for each product: they leave
    the registers once per band of rows. Measure: as forward; 18 products per three loads and
    one store.
    """
    return _backward(dy, x, w, stride, pads, threads=False)


def backward_simd(
    dy: Array, x: Array, w: Array, *, stride: Pair = (1, 1), pads: Pads = (0, 0, 0, 0)
) -> tuple[Array, Array]:
    """Threads: tasks cut by shape alone; dw is summed per chunk of rows, and those in order.

    Saves: time only. Measure: as forward.
    """
    return _backward(dy, x, w, stride, pads, threads=True)


def _backward(
    dy: Array, x: Array, w: Array, stride: Pair, pads: Pads, *, threads: bool
) -> tuple[Array, Array]:
    by_2 = applies_by_2(x, w, stride)
    if not by_2 and not applies(x, w, stride):
        dx = slide_back(dy, w, x.shape[1:3], stride, pads, threads=threads)
        return dx, sum_rows(dy, x, w.shape[:2], stride, pads, threads=threads)
    dx, before = empty_like(x), (pads[0], pads[2])
    n_tasks = cut(dy.shape[0] * dy.shape[1], 18 * dy.size) if threads else 1
    # A chunk's own dw is written and read once more: where it is not small against the input,
    # tasks get fewer channels instead of fewer rows.
    n_chunks = min(n_tasks, max(1, x.size // (16 * w.size)))
    n_parts = min(-(-n_tasks // n_chunks), -(-x.shape[3] // PART))
    sums = new_sums(n_chunks, w)
    if not threads:
        channels, lines = (0, x.shape[3]), x.shape[0] * x.shape[1]
        args = dy, x, padded(w), dx, sums[0], 0
        if by_2:
            lines = x.shape[0] * pairs(x.shape[1], before[0])
            backward_lines_by_2(*args, lines, before, channels)
        else:
            backward_lines(*args, lines, before, channels, is_far(dx))
    elif by_2:
        backward_loop_by_2(dy, x, padded(w), dx, sums, before, n_parts)
    else:
        backward_loop(dy, x, padded(w), dx, sums, before, n_parts, is_far(dx))
    return dx, add_up(sums)


@kernel
def channels_of(part: int, n_parts: int, channels: int) -> Pair:
    """Return (first, last + 1) channel of a part; all but the last end are multiples of PART."""
    steps = -(-channels // PART)
    return part * steps // n_parts * PART, min((part + 1) * steps // n_parts * PART, channels)


@parallel
def backward_loop(
    dy: Array, x: Array, w: Array, dx: Array, sums: Array, before: Pair, n_parts: int, far: bool
) -> None:
    """dy (N, OH, OW, C), x, w (3, 3, C + ROOM) -> dx, sums (chunks, *w.shape) from zero."""
    n_chunks, lines = len(sums), x.shape[0] * x.shape[1]
    for task in prange(n_chunks * n_parts):
        chunk, channels = task // n_parts, channels_of(task % n_parts, n_parts, x.shape[3])
        low, high = chunk * lines // n_chunks, (chunk + 1) * lines // n_chunks
        backward_lines(dy, x, w, dx, sums[chunk], low, high, before, channels, far)


@parallel
def backward_loop_by_2(
    dy: Array, x: Array, w: Array, dx: Array, sums: Array, before: Pair, n_parts: int
) -> None:
    """Do the same at stride 2."""
    n_chunks, lines = len(sums), x.shape[0] * pairs(x.shape[1], before[0])
    for task in prange(n_chunks * n_parts):
        chunk, channels = task // n_parts, channels_of(task % n_parts, n_parts, x.shape[3])
        low, high = chunk * lines // n_chunks, (chunk + 1) * lines // n_chunks
        backward_lines_by_2(dy, x, w, dx, sums[chunk], low, high, before, channels)
