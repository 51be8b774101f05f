"""The fused rung: z is never stored, but computed again from x where it is needed.

`activate`, `add_sums` and `go_back` are the pieces that other kernels call.
"""

from __future__ import annotations

import numpy as np

from ..batchnorm import (
    BLOCK,
    GRAIN,
    add_wide,
    as_rows,
    inverse_std,
    quiet,
    row_chunks,
    statistics,
    strip_rows,
)
from ..checks import Array
from ..jit import chunks, kernel, parallel, prange
from ..memory import empty, empty_like, zeros
from ..simd import (
    VECTOR_BYTES,
    add,
    load,
    multiply,
    multiply_add,
    prefetch,
    store,
    subtract,
    where_positive,
    whole_vectors,
)
from .plain import Gradients, Output

AHEAD = 1 << 12  # bytes from what is read to what is asked for: some hundred nanoseconds


def spread(slope: Array, channels: int) -> Array:
    """Return one slope per channel."""
    return np.ascontiguousarray(np.broadcast_to(slope, (channels,)))


@quiet
def forward_fused(x: Array, gamma: Array, beta: Array, slope: Array, *, eps: float) -> Output:
    """Read x once for its statistics and once for y; z lives in a register."""
    wide_mean, wide_var = statistics(x)
    mean, var = wide_mean.astype(x.dtype), wide_var.astype(x.dtype)
    scale = (gamma * inverse_std(var, eps)).astype(x.dtype)
    y, rows = empty_like(x), as_rows(x)
    slopes = spread(slope, x.shape[-1])
    forward_loop(rows, mean, scale, beta, slopes, as_rows(y), row_chunks(rows))
    return y, mean, var


@parallel
def forward_loop(
    x: Array, mean: Array, scale: Array, beta: Array, slope: Array, y: Array, n_chunks: int
) -> None:
    """x (rows, C), all others (C,) -> y (rows, C)."""
    rows = x.shape[0]
    for chunk in prange(n_chunks):
        low, high = chunk * rows // n_chunks, (chunk + 1) * rows // n_chunks
        activate_rows(x[low:high], mean, scale, beta, slope, y[low:high], 0)


@kernel
def activate(x: Array, mean: Array, scale: Array, beta: Array, slope: Array, y: Array) -> None:
    """x (rows, C), all others (C,) -> y (rows, C), two rows at a time."""
    rows, row, whole = x.shape[0], x.itemsize * x.shape[1], whole_vectors(x)
    for i in range(0, rows, 2):
        x_at, y_at = x.ctypes.data + i * row, y.ctypes.data + i * row
        other = row if i + 1 < rows else 0  # an odd last row is done twice
        for at in range(0, whole, VECTOR_BYTES):
            prefetch(x_at + AHEAD + at)
            prefetch(x_at + AHEAD + other + at)
            m, s = load(mean.ctypes.data + at), load(scale.ctypes.data + at)
            b, negative = load(beta.ctypes.data + at), load(slope.ctypes.data + at)
            z0 = multiply_add(subtract(load(x_at + at), m), s, b)
            z1 = multiply_add(subtract(load(x_at + other + at), m), s, b)
            store(where_positive(z0, z0, multiply(negative, z0)), y_at + at)
            store(where_positive(z1, z1, multiply(negative, z1)), y_at + other + at)
    activate_rows(x, mean, scale, beta, slope, y, whole // x.itemsize)


@kernel
def activate_rows(
    x: Array, mean: Array, scale: Array, beta: Array, slope: Array, y: Array, left: int
) -> None:
    """`activate` for channel `left` and those after it, row by row."""
    m, s, b, negative = mean[left:], scale[left:], beta[left:], slope[left:]
    for i in range(x.shape[0] if m.size else 0):
        x_row, y_row = x[i, left:], y[i, left:]
        for c in range(x_row.size):
            z = (x_row[c] - m[c]) * s[c] + b[c]
            y_row[c] = z if z > 0 else negative[c] * z


@quiet
def backward_fused(
    dy: Array,
    x: Array,
    gamma: Array,
    beta: Array,
    slope: Array,
    mean: Array,
    var: Array,
    *,
    eps: float,
) -> Gradients:
    """One pass for all three sums, one for dx; each computes z and its gradient anew."""
    inverse, rows, dy_rows = inverse_std(var, eps), as_rows(x), as_rows(dy)
    scale, slopes = gamma * inverse, spread(slope, x.shape[-1])
    z_of = (mean, scale.astype(x.dtype), beta, slopes)
    n_chunks = chunks(len(rows), GRAIN)
    partial = zeros((n_chunks, 3, mean.size), np.float64)
    sums_loop(dy_rows, rows, *z_of, empty(partial.shape, x.dtype), partial)
    by_x, shift, *gradients = from_sums(partial, scale, inverse, len(rows), slope)
    dx = empty_like(x)
    dx_loop(dy_rows, rows, *z_of, by_x, shift, as_rows(dx), row_chunks(rows))
    dgamma, dbeta, dslope = gradients
    return dx, dgamma, dbeta, dslope


def from_sums(
    sums: Array, scale: Array, inverse: Array, rows: int, slope: Array
) -> tuple[Array, Array, Array, Array, Array]:
    """Return by_x and shift, which `go_back` takes, and dgamma, dbeta, dslope.

    All follow from sums (chunks, 3, C) as `add_sums` adds them up over `rows` rows; scale and
    inverse, gamma / std and 1 / std, are float64.
    """
    sum_dz, sum_dz_x, dslope = sums.sum(axis=0)
    if slope.shape == (1,):
        dslope = dslope.sum(keepdims=True)
    by_x, shift = -scale * inverse**2 * sum_dz_x / rows, -scale * sum_dz / rows
    found = by_x, shift, sum_dz_x * inverse, sum_dz, dslope
    by_x, shift, dgamma, dbeta, dslope = (a.astype(slope.dtype) for a in found)
    return by_x, shift, dgamma, dbeta, dslope


@parallel
def sums_loop(
    dy: Array,
    x: Array,
    mean: Array,
    scale: Array,
    beta: Array,
    slope: Array,
    sums: Array,
    partial: Array,
) -> None:
    """dy, x (rows, C) -> partial (chunks, 3, C) float64, from zero: dz, dz * (x - mean), dslope.

    `sums` (chunks, 3, C) of x's dtype is scratch: float32 sums are at most BLOCK rows long.
    """
    rows, n_chunks = x.shape[0], partial.shape[0]
    for chunk in prange(n_chunks):
        low, high = chunk * rows // n_chunks, (chunk + 1) * rows // n_chunks
        add_sums(dy[low:high], x[low:high], mean, scale, beta, slope, sums[chunk], partial[chunk])


@kernel
def add_sums(
    dy: Array,
    x: Array,
    mean: Array,
    scale: Array,
    beta: Array,
    slope: Array,
    sums: Array,
    partial: Array,
) -> None:
    """dy, x (rows, C) -> added to partial (3, C) float64; sums (3, C): scratch."""
    for start in range(0, x.shape[0], BLOCK):
        end = min(start + BLOCK, x.shape[0])
        add_block_sums(dy[start:end], x[start:end], mean, scale, beta, slope, sums, partial)


@kernel
def add_block_sums(
    dy: Array,
    x: Array,
    mean: Array,
    scale: Array,
    beta: Array,
    slope: Array,
    sums: Array,
    partial: Array,
) -> None:
    """dy, x (rows, C), at most BLOCK of them -> added to partial (3, C); sums (3, C): scratch."""
    sums[:] = 0
    rows, row, whole = x.shape[0], x.itemsize * x.shape[1], whole_vectors(x)
    step, total, to_dy = strip_rows(row) * row, sums.ctypes.data, dy.ctypes.data - x.ctypes.data
    for start in range(x.ctypes.data, x.ctypes.data + rows * row, step):
        end = min(start + step, x.ctypes.data + rows * row)
        for at in range(0, whole, VECTOR_BYTES):
            m, s = load(mean.ctypes.data + at), load(scale.ctypes.data + at)
            b, negative = load(beta.ctypes.data + at), load(slope.ctypes.data + at)
            of_dz, of_dz_x = load(total + at), load(total + row + at)
            of_slope = load(total + 2 * row + at)
            for here in range(start + at, end, row):
                prefetch(here + step)
                prefetch(here + to_dy + step)
                centred, g = subtract(load(here), m), load(here + to_dy)
                z = multiply_add(centred, s, b)
                dz = where_positive(z, g, multiply(negative, g))
                of_dz = add(of_dz, dz)
                of_dz_x = multiply_add(dz, centred, of_dz_x)
                of_slope = where_positive(z, of_slope, multiply_add(z, g, of_slope))
            store(of_dz, total + at)
            store(of_dz_x, total + row + at)
            store(of_slope, total + 2 * row + at)
    add_sums_rows(dy, x, mean, scale, beta, slope, sums, whole // x.itemsize)
    add_wide(sums, partial)


@kernel
def add_sums_rows(
    dy: Array,
    x: Array,
    mean: Array,
    scale: Array,
    beta: Array,
    slope: Array,
    sums: Array,
    left: int,
) -> None:
    """dy, x (rows, C) -> added to sums (3, C), for channel `left` and those after it."""
    m, s, b, negative = mean[left:], scale[left:], beta[left:], slope[left:]
    of_dz, of_dz_x, of_slope = sums[0, left:], sums[1, left:], sums[2, left:]
    for i in range(x.shape[0] if m.size else 0):
        dy_row, x_row = dy[i, left:], x[i, left:]
        for c in range(x_row.size):
            centred = x_row[c] - m[c]
            z = centred * s[c] + b[c]
            dz = dy_row[c] if z > 0 else negative[c] * dy_row[c]
            of_dz[c] += dz
            of_dz_x[c] += dz * centred
            of_slope[c] += 0 if z > 0 else z * dy_row[c]


@parallel
def dx_loop(
    dy: Array,
    x: Array,
    mean: Array,
    scale: Array,
    beta: Array,
    slope: Array,
    by_x: Array,
    shift: Array,
    dx: Array,
    n_chunks: int,
) -> None:
    """dy, x (rows, C), all others (C,) -> dx (rows, C) = scale * dz + by_x * (x - mean) + shift."""
    rows = x.shape[0]
    for chunk in prange(n_chunks):
        low, high = chunk * rows // n_chunks, (chunk + 1) * rows // n_chunks
        go_back_rows(
            dy[low:high], x[low:high], mean, scale, beta, slope, by_x, shift, dx[low:high], 0
        )


@kernel
def go_back(
    dy: Array,
    x: Array,
    mean: Array,
    scale: Array,
    beta: Array,
    slope: Array,
    by_x: Array,
    shift: Array,
    dx: Array,
) -> None:
    """dy, x (rows, C), all others (C,) -> dx (rows, C), which may be dy; two rows at a time."""
    rows, row, whole = x.shape[0], x.itemsize * x.shape[1], whole_vectors(x)
    for i in range(0, rows, 2):
        x_at, dy_at, dx_at = (
            x.ctypes.data + i * row,
            dy.ctypes.data + i * row,
            dx.ctypes.data + i * row,
        )
        other = row if i + 1 < rows else 0  # an odd last row is done twice, then stored
        for at in range(0, whole, VECTOR_BYTES):
            prefetch(x_at + AHEAD + at)
            prefetch(x_at + AHEAD + other + at)
            prefetch(dy_at + AHEAD + at)
            prefetch(dy_at + AHEAD + other + at)
            m, s = load(mean.ctypes.data + at), load(scale.ctypes.data + at)
            b, negative = load(beta.ctypes.data + at), load(slope.ctypes.data + at)
            per_x, constant = load(by_x.ctypes.data + at), load(shift.ctypes.data + at)
            c0, g0 = subtract(load(x_at + at), m), load(dy_at + at)
            c1, g1 = subtract(load(x_at + other + at), m), load(dy_at + other + at)
            dz0 = where_positive(multiply_add(c0, s, b), g0, multiply(negative, g0))
            dz1 = where_positive(multiply_add(c1, s, b), g1, multiply(negative, g1))
            store(multiply_add(dz0, s, multiply_add(c0, per_x, constant)), dx_at + at)
            store(multiply_add(dz1, s, multiply_add(c1, per_x, constant)), dx_at + other + at)
    go_back_rows(dy, x, mean, scale, beta, slope, by_x, shift, dx, whole // x.itemsize)


@kernel
def go_back_rows(
    dy: Array,
    x: Array,
    mean: Array,
    scale: Array,
    beta: Array,
    slope: Array,
    by_x: Array,
    shift: Array,
    dx: Array,
    left: int,
) -> None:
    """`go_back` for channel `left` and those after it, row by row."""
    m, s, b, negative = mean[left:], scale[left:], beta[left:], slope[left:]
    per_x, constant = by_x[left:], shift[left:]
    for i in range(x.shape[0] if m.size else 0):
        dy_row, x_row, dx_row = dy[i, left:], x[i, left:], dx[i, left:]
        for c in range(x_row.size):
            centred = x_row[c] - m[c]
            z = centred * s[c] + b[c]
            dz = dy_row[c] if z > 0 else negative[c] * dy_row[c]
            dx_row[c] = s[c] * dz + (per_x[c] * centred + constant[c])


@parallel
def go_back_loop(
    g: Array, x: Array, mean: Array, scale: Array, beta: Array, slope: Array, by_x: Array,
    shift: Array, n_chunks: int,
) -> None:  # fmt: skip
    """g, x (rows, C), all others (C,): g becomes dx."""
    rows = x.shape[0]
    for chunk in prange(n_chunks):
        low, high = chunk * rows // n_chunks, (chunk + 1) * rows // n_chunks
        g_part = g[low:high]
        go_back(g_part, x[low:high], mean, scale, beta, slope, by_x, shift, g_part)
