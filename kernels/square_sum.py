"""Sum of squares of a flat array, for the norm that gradient clipping looks at.

| rung  | the one idea                                                               |
|-------|----------------------------------------------------------------------------|
| naive | one loop, one float64 sum                                                  |
| numpy | a whole-array product, and a temporary array of float64                    |
| fused | one pass on all threads; each chunk its own sum, added up in chunk order   |

The sum is float64 whatever the array is: millions of small squares are added.
"""

from __future__ import annotations

import numpy as np

from .checks import Array, check_array
from .jit import chunks, kernel, parallel, prange
from .ladder import Ladder

# Elements that make a chunk worth a thread: one stream of 64 KB.
CHUNK = 16384


def _check_forward(x: Array) -> None:
    check_array("x", x, ("n",))


def forward_naive(x: Array) -> Array:
    """Visit every element; the result has shape () and dtype x.dtype."""
    return np.asarray(naive_loop(x), x.dtype)


@kernel
def naive_loop(x: Array) -> float:
    """x (n,) -> sum of squares."""
    total = 0.0
    for i in range(x.size):
        total += np.float64(x[i]) * np.float64(x[i])
    return total


def forward_numpy(x: Array) -> Array:
    """Whole arrays at a time."""
    return np.asarray(np.square(x, dtype=np.float64).sum(), x.dtype)


def forward_fused(x: Array) -> Array:
    """One pass on all threads, no temporary but one sum per chunk."""
    partial = np.zeros(chunks(x.size, CHUNK))
    fused_loop(x, partial)
    return np.asarray(partial.sum(), x.dtype)


@parallel
def fused_loop(x: Array, partial: Array) -> None:
    """x (n,) -> partial (chunks,) float64."""
    n_chunks = partial.size
    for chunk in prange(n_chunks):
        part = x[chunk * x.size // n_chunks : (chunk + 1) * x.size // n_chunks]
        total = 0.0
        for i in range(part.size):
            value = np.float64(part[i])
            total += value * value
        partial[chunk] = total


forward = Ladder(
    "square_sum.forward",
    check=_check_forward,
    naive=forward_naive,
    numpy=forward_numpy,
    fused=forward_fused,
)
