"""Matrix products by BLAS on one thread per part: the rung blas, and how products are cut."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..checks import Array
from ..jit import MAX_CHUNKS, chunks, parallel, prange, run_blas
from ..memory import empty

# About 0.5 ms of work; smaller parts lose to waking threads up.
PART_MACS = 25_000_000
# Narrower tiles than this lose BLAS's speed to packing.
BLAS_TILE = 192
# A shorter reduction than this is not worth an extra output to be added up.
SHORTEST_REDUCTION = 1024
# Partial outputs of a split reduction take at most this many elements (16 MB).
MAX_PARTIAL = 1 << 22
# Elements of a sum of partial outputs that are worth a thread; such a part stays in L1.
GRAIN = 1 << 12


def cuts(n: int, parts: int) -> list[slice]:
    """Cut `n` items into at most `parts` slices of nearly equal size, in steps of 16."""
    step = max(1, -(-n // max(1, parts)))
    step = -(-step // 16) * 16
    return [slice(low, min(low + step, n)) for low in range(0, n, step)]


def wanted_parts(macs: int) -> int:
    """Return into how many parts a product of that many multiply-accumulates is worth cutting."""
    return max(1, min(MAX_CHUNKS, macs // PART_MACS))


def tiles(m: int, n: int, parts: int) -> list[tuple[slice, slice]]:
    """Cut an (m, n) output into about `parts` tiles: rows first, columns when rows are few."""
    by_row = max(1, min(parts, m // BLAS_TILE))
    by_column = max(1, min(-(-parts // by_row), n // BLAS_TILE))
    return [(i, j) for i in cuts(m, by_row) for j in cuts(n, by_column)]


def _product(a: Array, b: Array, y: Array) -> Callable[[], object]:
    return lambda: np.matmul(a, b, out=y)


def nn_blas(a: Array, b: Array) -> Array:
    """BLAS on tiles of the output; each tile is one thread's work, whichever thread it is."""
    y = empty((a.shape[0], b.shape[1]), a.dtype)
    m, n = y.shape
    parts = tiles(m, n, wanted_parts(y.size * a.shape[1]))
    run_blas([_product(a[i], b[:, j], y[i, j]) for i, j in parts])
    return y


def nt_blas(a: Array, b: Array) -> Array:
    """BLAS on tiles of the output; it reads the transpose in place."""
    return nn_blas(a, b.T)


def tn_blas(a: Array, b: Array) -> Array:
    """BLAS on tiles of a large output, and on chunks of a long reduction for a small one.

    Partial sums of the chunks are added in order.
    """
    (k, m), n = a.shape, b.shape[1]
    wanted = wanted_parts(k * m * n)
    outputs = tiles(m, n, min(wanted, max(1, m * n // BLAS_TILE**2)))
    n_chunks = reduction_chunks(k, m * n, -(-wanted // max(1, len(outputs))))
    reduction = cuts(k, n_chunks) or [slice(0, 0)]
    partial = empty((len(reduction), m, n), a.dtype)
    run_blas(
        [
            _product(a[r, i].T, b[r, j], partial[chunk, i, j])
            for chunk, r in enumerate(reduction)
            for i, j in outputs
        ]
    )
    return add_up(partial)


def reduction_chunks(k: int, outputs: int, wanted: int) -> int:
    """Return how many chunks a reduction of length k is worth, for that many output elements."""
    return max(1, min(wanted, k // SHORTEST_REDUCTION, MAX_PARTIAL // max(1, outputs)))


def add_up(partial: Array) -> Array:
    """Sum over the first axis in order; the only chunk is returned as it is."""
    total: Array = partial[0]
    if len(partial) == 1:
        return total
    total = empty(partial.shape[1:], partial.dtype)
    flat = partial.reshape(len(partial), -1)
    add_up_loop(flat, total.reshape(-1), chunks(total.size, GRAIN))
    return total


@parallel
def add_up_loop(partial: Array, total: Array, n_chunks: int) -> None:
    """Partial (parts, size) -> total (size,)."""
    size = total.size
    for chunk in prange(n_chunks):
        low, high = chunk * size // n_chunks, (chunk + 1) * size // n_chunks
        out, first = total[low:high], partial[0, low:high]
        for i in range(out.size):
            out[i] = first[i]
        for part in range(1, partial.shape[0]):
            row = partial[part, low:high]
            for i in range(out.size):
                out[i] += row[i]
