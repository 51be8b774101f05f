"""PReLU: y = x where x > 0, else slope * x  (He et al. 2015, eq. 1; QuickNet section 3.4).

| rung  | the one idea                                                              |
|-------|---------------------------------------------------------------------------|
| naive | two loops, one branch per element                                         |
| numpy | whole-array expressions: no loop, but several passes over memory          |
| fused | one pass, channels innermost, branch turned into a select, all threads    |

At x == 0 the slope side is taken: only x > 0 passes dy unchanged.
The slope has shape (C,) per channel, (1,) per layer, or x.shape[1:] per element.
"""

from __future__ import annotations

import numpy as np

from .checks import Array, ShapeError, check_array
from .jit import MAX_CHUNKS, chunks, kernel, parallel, prange
from .ladder import Ladder
from .memory import empty_like, zeros


def _check_forward(x: Array, slope: Array) -> None:
    check_array("x", x)
    check_array("slope", slope, like=x)
    if slope.shape not in ((1,), x.shape[-1:], x.shape[1:]):
        raise ShapeError(
            f"slope: expected shape (1,), ({x.shape[-1]},) or {x.shape[1:]} "
            f"for x of shape {x.shape}, got {slope.shape}"
        )


def _check_backward(dy: Array, x: Array, slope: Array) -> None:
    _check_forward(x, slope)
    check_array("dy", dy, x.shape, like=x)


def _rows(x: Array, slope: Array) -> tuple[Array, Array]:
    """View x as rows whose length is the slope's; one slope per layer is spread over channels."""
    if slope.shape == (1,):
        slope = np.full(x.shape[-1], slope[0], x.dtype)
    return x.reshape(-1, slope.size), slope.reshape(-1)


def _like_slope(dslope: Array, slope: Array) -> Array:
    """Bring the summed gradient, one value per column, back to the slope's shape and dtype."""
    if slope.shape == (1,):
        dslope = dslope.sum(keepdims=True)
    return dslope.astype(slope.dtype).reshape(slope.shape)


def forward_naive(x: Array, slope: Array) -> Array:
    """Visit every element and branch on its sign."""
    rows, slopes = _rows(x, slope)
    y = empty_like(rows)
    naive_forward_loop(rows, slopes, y)
    return y.reshape(x.shape)


@kernel
def naive_forward_loop(x: Array, slope: Array, y: Array) -> None:
    """x (rows, C), slope (C,) -> y (rows, C)."""
    for row in range(x.shape[0]):
        for c in range(x.shape[1]):
            if x[row, c] > 0:
                y[row, c] = x[row, c]
            else:
                y[row, c] = slope[c] * x[row, c]


def backward_naive(dy: Array, x: Array, slope: Array) -> tuple[Array, Array]:
    """Visit every element again; the slope's gradient is a sum over the negative ones."""
    rows, slopes = _rows(x, slope)
    dx, dslope = empty_like(rows), np.zeros(slopes.size)
    naive_backward_loop(dy.reshape(rows.shape), rows, slopes, dx, dslope)
    return dx.reshape(x.shape), _like_slope(dslope, slope)


@kernel
def naive_backward_loop(dy: Array, x: Array, slope: Array, dx: Array, dslope: Array) -> None:
    """dy, x (rows, C), slope (C,) -> dx (rows, C), dslope (C,) float64 that starts at zero."""
    for row in range(x.shape[0]):
        for c in range(x.shape[1]):
            if x[row, c] > 0:
                dx[row, c] = dy[row, c]
            else:
                dx[row, c] = slope[c] * dy[row, c]
                dslope[c] += x[row, c] * dy[row, c]


def forward_numpy(x: Array, slope: Array) -> Array:
    """Whole arrays at a time: four passes over memory and two temporary arrays."""
    return np.where(x > 0, x, slope * x)


def backward_numpy(dy: Array, x: Array, slope: Array) -> tuple[Array, Array]:
    """Whole arrays at a time."""
    positive = x > 0
    dx = np.where(positive, dy, slope * dy)
    rows, _ = _rows(np.where(positive, 0, x * dy), slope)
    return dx, _like_slope(rows.sum(axis=0, dtype=np.float64), slope)


def _cuts(rows: Array) -> tuple[int, int]:
    """Return into how many parts to cut rows and columns.

    Rows of one slope per element are as long as an image: few rows, each worth many threads,
    and a partial sum per chunk of rows would cost as much as x itself.
    """
    n_columns = chunks(rows.shape[1], 2048)
    return chunks(min(len(rows), MAX_CHUNKS // n_columns)), n_columns


def forward_fused(x: Array, slope: Array) -> Array:
    """One pass on all threads: x is read once, y written once, the branch becomes a select."""
    rows, slopes = _rows(x, slope)
    y = empty_like(rows)
    fused_forward_loop(rows, slopes, y, *_cuts(rows))
    return y.reshape(x.shape)


@parallel
def fused_forward_loop(x: Array, slope: Array, y: Array, n_rows: int, n_columns: int) -> None:
    """x (rows, C), slope (C,) -> y (rows, C), cut into n_rows x n_columns pieces of work."""
    rows, columns = x.shape
    for chunk in prange(n_rows * n_columns):
        part, side = chunk // n_columns, chunk % n_columns
        left, right = side * columns // n_columns, (side + 1) * columns // n_columns
        slopes = slope[left:right]
        for row in range(part * rows // n_rows, (part + 1) * rows // n_rows):
            # Views, so that no index check is left inside.
            x_row, y_row = x[row, left:right], y[row, left:right]
            for c in range(x_row.size):
                v = x_row[c]
                y_row[c] = v if v > 0 else slopes[c] * v


def backward_fused(dy: Array, x: Array, slope: Array) -> tuple[Array, Array]:
    """Both gradients in one pass; each chunk sums its own dslope, added up in chunk order."""
    rows, slopes = _rows(x, slope)
    dx = empty_like(rows)
    n_rows, n_columns = _cuts(rows)
    partial = zeros((n_rows, slopes.size), x.dtype)
    fused_backward_loop(dy.reshape(rows.shape), rows, slopes, dx, partial, n_columns)
    return dx.reshape(x.shape), _like_slope(partial.sum(axis=0, dtype=np.float64), slope)


@parallel
def fused_backward_loop(
    dy: Array, x: Array, slope: Array, dx: Array, partial: Array, n_columns: int
) -> None:
    """dy, x (rows, C), slope (C,) -> dx (rows, C), partial (n_rows, C) that starts at zero."""
    (rows, columns), n_rows = x.shape, partial.shape[0]
    for chunk in prange(n_rows * n_columns):
        part, side = chunk // n_columns, chunk % n_columns
        left, right = side * columns // n_columns, (side + 1) * columns // n_columns
        slopes, dslope = slope[left:right], partial[part, left:right]
        for row in range(part * rows // n_rows, (part + 1) * rows // n_rows):
            x_row, dy_row, dx_row = x[row, left:right], dy[row, left:right], dx[row, left:right]
            for c in range(x_row.size):
                v, g = x_row[c], dy_row[c]
                dx_row[c] = g if v > 0 else slopes[c] * g
                dslope[c] += 0 if v > 0 else v * g


forward = Ladder(
    "prelu.forward",
    check=_check_forward,
    naive=forward_naive,
    numpy=forward_numpy,
    fused=forward_fused,
)
backward = Ladder(
    "prelu.backward",
    check=_check_backward,
    naive=backward_naive,
    numpy=backward_numpy,
    fused=backward_fused,
)
