"""Depthwise convolution: every channel has a kernel of its own (Sifre 2014; QuickNet s. 2.3).

    y[n, oy, ox, c] = sum over ky, kx of x[n, oy*s + ky - top, ox*s + kx - left, c] * w[ky, kx, c]

x (N, H, W, C), w (KH, KW, C), y (N, OH, OW, C); pads = (top, bottom, left, right).

| rung          | the one idea                                                               |
|---------------|----------------------------------------------------------------------------|
| naive         | the sum as it stands, six loops, one bounds test per product               |
| numpy         | one shifted slice of the padded input per tap                              |
| channels_last | channels innermost, three taps of a kernel row at once, borders cut off    |

There are few products per byte here (9 per number read), so memory decides: a row of the
output stays in the first-level cache while the rows of the kernel are added to it.
"""

from __future__ import annotations

import numpy as np

from .checks import Array, ShapeError, check_array
from .jit import chunks, kernel, parallel, prange
from .ladder import Ladder
from .memory import empty, empty_like
from .windows import Pads, Pair, output_size

# Products that make a chunk worth a thread: about 10 microseconds.
CHUNK = 1 << 16


def _check_forward(
    x: Array, w: Array, *, stride: Pair = (1, 1), pads: Pads = (0, 0, 0, 0)
) -> tuple[int, ...]:
    check_array("x", x, ("N", "H", "W", "C"))
    check_array("w", w, ("KH", "KW", x.shape[3]), like=x)
    if x.shape[0] < 1 or x.shape[3] < 1:
        raise ShapeError(f"x: expected at least one image and one channel, got shape {x.shape}")
    return output_size(x.shape[1:3], w.shape[:2], stride=stride, pads=pads)


def _check_backward(
    dy: Array, x: Array, w: Array, *, stride: Pair = (1, 1), pads: Pads = (0, 0, 0, 0)
) -> None:
    size = _check_forward(x, w, stride=stride, pads=pads)
    check_array("dy", dy, (x.shape[0], *size, x.shape[3]), like=x)


def _output(x: Array, w: Array, stride: Pair, pads: Pads) -> Array:
    oh, ow = output_size(x.shape[1:3], w.shape[:2], stride=stride, pads=pads)
    return empty((x.shape[0], oh, ow, x.shape[3]), x.dtype)


# --- naive ----------------------------------------------------------------------------


def forward_naive(x: Array, w: Array, *, stride: Pair = (1, 1), pads: Pads = (0, 0, 0, 0)) -> Array:
    """Six plain loops and a bounds test."""
    y = _output(x, w, stride, pads)
    naive_forward_loop(x, w, y, stride, pads)
    return y


@kernel
def naive_forward_loop(x: Array, w: Array, y: Array, stride: Pair, pads: Pads) -> None:
    """X (N, H, W, C), w (KH, KW, C) -> y (N, OH, OW, C)."""
    for n in range(y.shape[0]):
        for oy in range(y.shape[1]):
            for ox in range(y.shape[2]):
                for c in range(y.shape[3]):
                    total = x.dtype.type(0)
                    for ky in range(w.shape[0]):
                        for kx in range(w.shape[1]):
                            iy, ix = oy * stride[0] + ky - pads[0], ox * stride[1] + kx - pads[2]
                            if 0 <= iy < x.shape[1] and 0 <= ix < x.shape[2]:
                                total += x[n, iy, ix, c] * w[ky, kx, c]
                    y[n, oy, ox, c] = total


def backward_naive(
    dy: Array, x: Array, w: Array, *, stride: Pair = (1, 1), pads: Pads = (0, 0, 0, 0)
) -> tuple[Array, Array]:
    """The same loops: each product of the forward pass hands its gradient to both factors."""
    dx, dw = np.zeros_like(x), np.zeros(w.shape)
    naive_backward_loop(dy, x, w, dx, dw, stride, pads)
    return dx, dw.astype(w.dtype)


@kernel
def naive_backward_loop(
    dy: Array, x: Array, w: Array, dx: Array, dw: Array, stride: Pair, pads: Pads
) -> None:
    """Dy (N, OH, OW, C), x, w -> dx (N, H, W, C), dw (KH, KW, C) float64; both start at zero."""
    for n in range(dy.shape[0]):
        for oy in range(dy.shape[1]):
            for ox in range(dy.shape[2]):
                for c in range(dy.shape[3]):
                    for ky in range(w.shape[0]):
                        for kx in range(w.shape[1]):
                            iy, ix = oy * stride[0] + ky - pads[0], ox * stride[1] + kx - pads[2]
                            if 0 <= iy < x.shape[1] and 0 <= ix < x.shape[2]:
                                dx[n, iy, ix, c] += dy[n, oy, ox, c] * w[ky, kx, c]
                                dw[ky, kx, c] += dy[n, oy, ox, c] * x[n, iy, ix, c]


# --- numpy ----------------------------------------------------------------------------


def _padded(x: Array, pads: Pads) -> Array:
    top, bottom, left, right = pads
    return np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)))


def _seen(padded: Array, tap: Pair, size: tuple[int, ...], stride: Pair) -> Array:
    """View what one tap of the kernel sees: one pixel for every pixel of the output."""
    (ky, kx), (oh, ow), (sh, sw) = tap, size, stride
    return padded[:, ky : ky + (oh - 1) * sh + 1 : sh, kx : kx + (ow - 1) * sw + 1 : sw]


def forward_numpy(x: Array, w: Array, *, stride: Pair = (1, 1), pads: Pads = (0, 0, 0, 0)) -> Array:
    """Add up one shifted slice of the padded input per tap."""
    y = _output(x, w, stride, pads)
    y.fill(0)
    padded = _padded(x, pads)
    for tap in np.ndindex(*w.shape[:2]):
        y += _seen(padded, tap, y.shape[1:3], stride) * w[tap]
    return y


def backward_numpy(
    dy: Array, x: Array, w: Array, *, stride: Pair = (1, 1), pads: Pads = (0, 0, 0, 0)
) -> tuple[Array, Array]:
    """Two whole-array expressions per tap, on the slices of the forward pass."""
    padded, dw = _padded(x, pads), empty_like(w)
    dpadded = np.zeros_like(padded)
    for tap in np.ndindex(*w.shape[:2]):
        dw[tap] = (_seen(padded, tap, dy.shape[1:3], stride) * dy).sum((0, 1, 2), dtype=np.float64)
        _seen(dpadded, tap, dy.shape[1:3], stride)[...] += dy * w[tap]
    top, _, left, _ = pads
    dx = dpadded[:, top : top + x.shape[1], left : left + x.shape[2]]
    return np.ascontiguousarray(dx), dw


# --- channels_last --------------------------------------------------------------------


def _chunks(lines: int, products: int) -> int:
    """Cut that many rows of maps, with that many products in all, into chunks by shape alone."""
    return chunks(lines, max(1, CHUNK * lines // max(1, products)))


def forward_channels_last(
    x: Array, w: Array, *, stride: Pair = (1, 1), pads: Pads = (0, 0, 0, 0)
) -> Array:
    """Channels innermost, so that loops vectorise; no bounds test inside."""
    y = _output(x, w, stride, pads)
    lines = y.shape[0] * y.shape[1]
    forward_loop(x, w, y, stride, pads, _chunks(lines, y.size * w.shape[0] * w.shape[1]))
    return y


@parallel
def forward_loop(x: Array, w: Array, y: Array, stride: Pair, pads: Pads, n_chunks: int) -> None:
    """X (N, H, W, C), w (KH, KW, C) -> y (N, OH, OW, C); a chunk of output rows is one task."""
    lines = y.shape[0] * y.shape[1]
    for chunk in prange(n_chunks):
        for line in range(chunk * lines // n_chunks, (chunk + 1) * lines // n_chunks):
            n, oy = line // y.shape[1], line % y.shape[1]
            y_row = y[n, oy]
            y_row[:] = 0
            for ky in range(w.shape[0]):
                iy = oy * stride[0] + ky - pads[0]
                if 0 <= iy < x.shape[1]:
                    forward_row(x[n, iy], w[ky], y_row, stride[1], pads[2])


@kernel
def forward_row(x: Array, w: Array, y: Array, stride: int, left: int) -> None:
    """X (W, C), one kernel row w (KW, C): adds to y (OW, C)."""
    for ox in range(y.shape[0]):
        first = ox * stride - left
        kx, stop = max(0, -first), min(w.shape[0], x.shape[0] - first)
        pixel = y[ox]
        while kx + 3 <= stop:
            i = first + kx
            add_three(pixel, x[i], x[i + 1], x[i + 2], w[kx], w[kx + 1], w[kx + 2])
            kx += 3
        while kx < stop:
            add_one(pixel, x[first + kx], w[kx])
            kx += 1


@kernel
def add_three(y: Array, a: Array, b: Array, c: Array, u: Array, v: Array, w: Array) -> None:
    """Add a * u + b * v + c * w to y; all (C,)."""
    for i in range(y.size):
        y[i] += a[i] * u[i] + b[i] * v[i] + c[i] * w[i]


@kernel
def add_one(y: Array, a: Array, u: Array) -> None:
    """Add a * u to y; all (C,)."""
    for i in range(y.size):
        y[i] += a[i] * u[i]


def backward_channels_last(
    dy: Array, x: Array, w: Array, *, stride: Pair = (1, 1), pads: Pads = (0, 0, 0, 0)
) -> tuple[Array, Array]:
    """Gather dx row by row, sum dw per chunk of rows; chunks are added up in order."""
    dx = empty_like(x)
    lines, products = dy.shape[0] * dy.shape[1], dy.size * w.shape[0] * w.shape[1]
    # A chunk's own dw is written and read once more: keep them few against the input.
    n_chunks = min(_chunks(lines, products), max(1, x.size // (4 * w.size)))
    partial = np.zeros((n_chunks, *w.shape), w.dtype)
    backward_loop(dy, x, w, dx, partial, stride, pads)
    return dx, partial.sum(axis=0, dtype=np.float64).astype(w.dtype)


@parallel
def backward_loop(
    dy: Array, x: Array, w: Array, dx: Array, partial: Array, stride: Pair, pads: Pads
) -> None:
    """Dy (N, OH, OW, C), x, w -> dx (N, H, W, C), partial (chunks, KH, KW, C) that starts at 0."""
    n_chunks = partial.shape[0]
    lines_in, lines_out = x.shape[0] * x.shape[1], dy.shape[0] * dy.shape[1]
    for chunk in prange(n_chunks):
        for line in range(chunk * lines_out // n_chunks, (chunk + 1) * lines_out // n_chunks):
            n, oy = line // dy.shape[1], line % dy.shape[1]
            for ky in range(w.shape[0]):
                iy = oy * stride[0] + ky - pads[0]
                if 0 <= iy < x.shape[1]:
                    weight_row(dy[n, oy], x[n, iy], partial[chunk, ky], stride[1], pads[2])
        for line in range(chunk * lines_in // n_chunks, (chunk + 1) * lines_in // n_chunks):
            n, iy = line // x.shape[1], line % x.shape[1]
            dx_row = dx[n, iy]
            dx_row[:] = 0
            for ky in range(w.shape[0]):
                oy = (iy + pads[0] - ky) // stride[0]
                if 0 <= oy < dy.shape[1] and oy * stride[0] + ky - pads[0] == iy:
                    input_row(dy[n, oy], w[ky], dx_row, stride[1], pads[2])


@kernel
def weight_row(dy: Array, x: Array, dw: Array, stride: int, left: int) -> None:
    """Dy (OW, C), x (W, C): adds to one kernel row dw (KW, C)."""
    for ox in range(dy.shape[0]):
        first = ox * stride - left
        for kx in range(max(0, -first), min(dw.shape[0], x.shape[0] - first)):
            add_one(dw[kx], x[first + kx], dy[ox])


@kernel
def input_row(dy: Array, w: Array, dx: Array, stride: int, left: int) -> None:
    """Dy (OW, C), one kernel row w (KW, C): adds to dx (W, C)."""
    for ox in range(dy.shape[0]):
        first = ox * stride - left
        for kx in range(max(0, -first), min(w.shape[0], dx.shape[0] - first)):
            add_one(dx[first + kx], w[kx], dy[ox])


forward = Ladder(
    "depthwise.forward",
    check=_check_forward,
    naive=forward_naive,
    numpy=forward_numpy,
    channels_last=forward_channels_last,
)
backward = Ladder(
    "depthwise.backward",
    check=_check_backward,
    naive=backward_naive,
    numpy=backward_numpy,
    channels_last=backward_channels_last,
)
