"""Batch norm on all threads: forward and backward read x twice, sums run in vectors."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..checks import Array
from ..jit import chunks, kernel, parallel, prange
from ..memory import empty, empty_like, zeros
from ..simd import (
    VECTOR_BYTES,
    add,
    address,
    fence,
    is_far,
    load,
    multiply_add,
    prefetch,
    store,
    stream,
    subtract,
    whole_vectors,
)
from .plain import as_rows, inverse_std, quiet

BLOCK = 32  # rows summed in the input's own precision
STRIP = 1 << 14  # bytes of each array that a strip of rows may hold: two fill L1
GRAIN = 64  # rows that make a chunk worth a thread


@quiet
def forward_fused(x: Array, gamma: Array, beta: Array, *, eps: float) -> tuple[Array, Array, Array]:
    """Read x once for both statistics and once for the result, in memory order."""
    mean, var = statistics(x)
    y = _normalise(x, gamma, beta, mean, inverse_std(var, eps))
    return y, mean.astype(x.dtype), var.astype(x.dtype)


def statistics(x: Array) -> tuple[Array, Array]:
    """Return mean and biased variance over all axes but the last, float64, in one pass over x."""
    rows, channels = as_rows(x), x.shape[-1]
    n_chunks = chunks(len(rows), GRAIN)
    stats = zeros((n_chunks, 2, channels), np.float64)
    statistics_loop(rows, empty((n_chunks, 2, channels), x.dtype), stats)
    return combine(stats, np.diff(np.arange(n_chunks + 1) * len(rows) // n_chunks))


def combine(stats: Array, counts: Array) -> tuple[Array, Array]:
    """Return mean and biased variance of all chunks, from stats (chunks, 2, C) of `counts` rows."""
    mean, var = np.zeros(stats.shape[2]), np.zeros(stats.shape[2])
    combine_loop(stats, counts, mean, var)
    return mean, var


@kernel
def combine_loop(stats: Array, counts: Array, mean: Array, var: Array) -> None:
    """Stats (chunks, 2, C), counts (chunks,) -> mean, var (C,), all from zero and in order."""
    rows = 0.0
    for chunk in range(counts.size):
        rows += counts[chunk]
    for chunk in range(counts.size):
        share, means = counts[chunk] / rows, stats[chunk, 0]
        for c in range(mean.size):
            mean[c] += share * means[c]
    for chunk in range(counts.size):
        share, means, deviation = counts[chunk] / rows, stats[chunk, 0], stats[chunk, 1]
        for c in range(mean.size):
            d = means[c] - mean[c]
            var[c] += deviation[c] / rows + share * d * d


@parallel
def statistics_loop(x: Array, sums: Array, stats: Array) -> None:
    """x (rows, C) -> stats (chunks, 2, C): mean and sum of squared deviations of each chunk.

    `stats` is float64 and starts at zero; `sums` (chunks, 2, C) of x's dtype is scratch.
    """
    rows, n_chunks = x.shape[0], stats.shape[0]
    for chunk in prange(n_chunks):
        low, high = chunk * rows // n_chunks, (chunk + 1) * rows // n_chunks
        add_statistics(x[low:high], 0, sums[chunk], stats[chunk])


@kernel
def add_statistics(x: Array, seen: int, sums: Array, stats: Array) -> None:
    """Add the rows of x (rows, C) to stats (2, C), which hold `seen` others; sums: scratch."""
    for start in range(0, x.shape[0], BLOCK):
        stop = min(start + BLOCK, x.shape[0])
        sum_differences(x[start:stop], sums)
        add_block(x[start], sums[0], sums[1], stop - start, start + seen, stats[0], stats[1])


@kernel
def add_block(
    origin: Array, total: Array, squares: Array, rows: int, seen: int, mean: Array, deviation: Array
) -> None:
    """Add some rows to mean and deviation (C,), which hold `seen` others.

    Total and squares (C,) are the sums of their differences from origin, squared or not.
    """
    n, before = np.float64(rows), np.float64(seen)
    for c in range(mean.size):
        t = np.float64(total[c])
        delta = origin[c] + t / n - mean[c]
        mean[c] += delta * (n / (n + before))
        deviation[c] += squares[c] - t * t / n + delta * delta * (n * before / (n + before))


@kernel
def strip_rows(row_bytes: int) -> int:
    """Return how many rows make a strip."""
    return max(1, STRIP // row_bytes)


@kernel
def sum_differences(x: Array, sums: Array) -> None:
    """x (rows, C) -> sums (2, C): of d = x - its first row, and of d * d."""
    sums[:] = 0
    rows, row, whole = x.shape[0], x.itemsize * x.shape[1], whole_vectors(x)
    step, origin, total = strip_rows(row) * row, x.ctypes.data, sums.ctypes.data
    for start in range(origin, origin + rows * row, step):
        end = min(start + step, origin + rows * row)
        for at in range(0, whole, VECTOR_BYTES):
            first = load(origin + at)
            s, q = load(total + at), load(total + row + at)
            for here in range(start + at, end, row):
                prefetch(here + step)
                d = subtract(load(here), first)
                s, q = add(s, d), multiply_add(d, d, q)
            store(s, total + at)
            store(q, total + row + at)
    left = whole // x.itemsize
    for i in range(1, rows):
        x_row, x_first, s_row, q_row = x[i, left:], x[0, left:], sums[0, left:], sums[1, left:]
        for c in range(x_row.size):
            difference = x_row[c] - x_first[c]
            s_row[c] += difference
            q_row[c] += difference * difference


@quiet
def _normalise(x: Array, gamma: Array, beta: Array, mean: Array, inverse: Array) -> Array:
    """(x - mean) * scale + shift in one pass."""
    y, rows = empty_like(x), as_rows(x)
    given = affine(gamma, beta, mean, inverse)
    affine_loop(rows, *given, as_rows(y), row_chunks(rows), is_far(y))
    return y


def affine(gamma: Array, beta: Array, mean: Array, inverse: Array) -> tuple[Array, Array, Array]:
    """Return mean, scale and shift in gamma's dtype; mean and inverse are float64.

    What rounding took from the mean is put into the shift.
    """
    rounded = mean.astype(gamma.dtype)
    scale = gamma * inverse
    shift = beta - (mean - rounded) * scale
    return rounded, scale.astype(gamma.dtype), shift.astype(gamma.dtype)


def row_chunks(rows: Array) -> int:
    """Chunks of at least 8,192 elements for loops that sum nothing over rows."""
    return chunks(len(rows), max(1, (1 << 13) // rows.shape[1]))


@parallel
def affine_loop(
    x: Array, mean: Array, scale: Array, shift: Array, y: Array, n_chunks: int, far: bool
) -> None:
    """x (rows, C) -> y (rows, C) = (x - mean) * scale + shift; far: as `is_far` says of y."""
    rows = x.shape[0]
    for turn in prange(n_chunks):
        chunk = n_chunks - 1 - np.int64(turn)  # first the rows that the statistics left in cache
        low, high = chunk * rows // n_chunks, (chunk + 1) * rows // n_chunks
        affine_rows(x[low:high], mean, scale, shift, y[low:high], far)


@kernel
def affine_rows(x: Array, mean: Array, scale: Array, shift: Array, y: Array, far: bool) -> None:
    """As `affine_loop`, for some rows; the subtraction loses no bits."""
    row, whole = x.itemsize * x.shape[1], whole_vectors(x)
    m_at, a_at, b_at = address(mean), address(scale), address(shift)
    for i in range(x.shape[0]):
        x_at, y_at = address(x) + i * row, address(y) + i * row
        for at in range(0, whole, VECTOR_BYTES):
            d = subtract(load(x_at + at), load(m_at + at))
            put(multiply_add(d, load(a_at + at), load(b_at + at)), y_at + at, far)
    if far:
        fence()
    left = whole // x.itemsize
    m, a, b = mean[left:], scale[left:], shift[left:]
    for i in range(x.shape[0] if m.size else 0):
        x_row, y_row = x[i, left:], y[i, left:]
        for c in range(x_row.size):
            y_row[c] = (x_row[c] - m[c]) * a[c] + b[c]


@kernel
def put(vector: Any, at: int, far: bool) -> None:
    """Write a vector, past the caches if it is far."""
    if far:
        stream(vector, at)
    else:
        store(vector, at)


def inference_fused(
    x: Array, gamma: Array, beta: Array, mean: Array, var: Array, *, eps: float
) -> Array:
    """One pass: the root and the division are done once per channel."""
    return _normalise(x, gamma, beta, mean.astype(np.float64), inverse_std(var, eps))


def _sums_fused(dy: Array, x: Array, mean: Array) -> tuple[Array, Array]:
    """Return the sums over rows of dy and of dy * (x - mean), in float64."""
    rows = as_rows(x)
    n_chunks = chunks(len(rows), GRAIN)
    partial = zeros((n_chunks, 2, mean.size), np.float64)
    sums_loop(as_rows(dy), rows, mean, empty(partial.shape, x.dtype), partial)
    sum_dy, sum_dy_x = partial.sum(axis=0)
    return sum_dy, sum_dy_x


@parallel
def sums_loop(dy: Array, x: Array, mean: Array, sums: Array, partial: Array) -> None:
    """dy, x (rows, C) -> partial (chunks, 2, C) float64, from zero; sums is scratch as above."""
    rows, n_chunks = x.shape[0], partial.shape[0]
    for chunk in prange(n_chunks):
        low, high = chunk * rows // n_chunks, (chunk + 1) * rows // n_chunks
        for start in range(low, high, BLOCK):
            stop = min(start + BLOCK, high)
            sum_products(dy[start:stop], x[start:stop], mean, sums[chunk])
            add_wide(sums[chunk], partial[chunk])


@kernel
def add_wide(sums: Array, partial: Array) -> None:
    """Sums (k, C) -> added to partial (k, C) float64."""
    for k in range(sums.shape[0]):
        narrow, wide = sums[k], partial[k]
        for c in range(narrow.size):
            wide[c] += narrow[c]


@kernel
def sum_products(dy: Array, x: Array, mean: Array, sums: Array) -> None:
    """dy, x (rows, C) -> sums (2, C): of dy, and of dy * (x - mean)."""
    sums[:] = 0
    rows, row, whole = x.shape[0], x.itemsize * x.shape[1], whole_vectors(x)
    step, total, to_dy = strip_rows(row) * row, sums.ctypes.data, dy.ctypes.data - x.ctypes.data
    for start in range(x.ctypes.data, x.ctypes.data + rows * row, step):
        end = min(start + step, x.ctypes.data + rows * row)
        for at in range(0, whole, VECTOR_BYTES):
            m = load(mean.ctypes.data + at)
            s, p = load(total + at), load(total + row + at)
            for here in range(start + at, end, row):
                prefetch(here + step)
                prefetch(here + to_dy + step)
                g = load(here + to_dy)
                s, p = add(s, g), multiply_add(g, subtract(load(here), m), p)
            store(s, total + at)
            store(p, total + row + at)
    left = whole // x.itemsize
    middle, s_row, p_row = mean[left:], sums[0, left:], sums[1, left:]
    for i in range(rows):
        dy_row, x_row = dy[i, left:], x[i, left:]
        for c in range(x_row.size):
            s_row[c] += dy_row[c]
            p_row[c] += dy_row[c] * (x_row[c] - middle[c])


@quiet
def backward_fused(
    dy: Array, x: Array, gamma: Array, mean: Array, var: Array, *, eps: float
) -> tuple[Array, Array, Array]:
    """One pass for the two sums, one for dx, which is then linear in dy and x per channel."""
    inverse, rows = inverse_std(var, eps), as_rows(x)
    sum_dy, sum_dy_x = _sums_fused(dy, x, mean)
    scale = gamma * inverse
    by_x = (-scale * inverse**2 * sum_dy_x / len(rows)).astype(x.dtype)
    shift = (-scale * sum_dy / len(rows)).astype(x.dtype)
    dx = empty_like(x)
    by_dy = scale.astype(x.dtype)
    dx_loop(as_rows(dy), rows, mean, by_dy, by_x, shift, as_rows(dx), row_chunks(rows), is_far(dx))
    return dx, (sum_dy_x * inverse).astype(x.dtype), sum_dy.astype(x.dtype)


@parallel
def dx_loop(
    dy: Array, x: Array, mean: Array, scale: Array, by_x: Array, shift: Array, dx: Array,
    n_chunks: int, far: bool,
) -> None:  # fmt: skip
    """dy, x (rows, C) -> dx (rows, C) = scale * dy + by_x * (x - mean) + shift; far: as above."""
    rows = x.shape[0]
    for turn in prange(n_chunks):
        chunk = n_chunks - 1 - np.int64(turn)  # first the rows that the sums left in cache
        low, high = chunk * rows // n_chunks, (chunk + 1) * rows // n_chunks
        dx_rows(dy[low:high], x[low:high], mean, scale, by_x, shift, dx[low:high], far)


@kernel
def dx_rows(
    dy: Array, x: Array, mean: Array, scale: Array, by_x: Array, shift: Array, dx: Array, far: bool
) -> None:
    """As `dx_loop`, for some rows."""
    row, whole = x.itemsize * x.shape[1], whole_vectors(x)
    m_at, a_at, b_at, c_at = address(mean), address(scale), address(by_x), address(shift)
    for i in range(x.shape[0]):
        dy_at, x_at, dx_at = address(dy) + i * row, address(x) + i * row, address(dx) + i * row
        for at in range(0, whole, VECTOR_BYTES):
            d = subtract(load(x_at + at), load(m_at + at))
            by_place = multiply_add(load(b_at + at), d, load(c_at + at))
            put(multiply_add(load(a_at + at), load(dy_at + at), by_place), dx_at + at, far)
    if far:
        fence()
    left = whole // x.itemsize
    m, a, b, c = mean[left:], scale[left:], by_x[left:], shift[left:]
    for i in range(x.shape[0] if m.size else 0):
        dy_row, x_row, dx_row = dy[i, left:], x[i, left:], dx[i, left:]
        for k in range(x_row.size):
            dx_row[k] = a[k] * dy_row[k] + (b[k] * (x_row[k] - m[k]) + c[k])


@quiet
def inference_backward_fused(
    dy: Array, x: Array, gamma: Array, mean: Array, var: Array, *, eps: float
) -> tuple[Array, Array, Array]:
    """The sums of `backward`, and dy scaled per channel by the loop of `inference`."""
    inverse, zero = inverse_std(var, eps), np.zeros_like(gamma)
    sum_dy, sum_dy_x = _sums_fused(dy, x, mean)
    dx, rows = empty_like(x), as_rows(dy)
    scale = (gamma * inverse).astype(x.dtype)
    affine_loop(rows, zero, scale, zero, as_rows(dx), row_chunks(rows), is_far(dx))
    return dx, (sum_dy_x * inverse).astype(x.dtype), sum_dy.astype(x.dtype)
