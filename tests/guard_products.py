"""Run every product on raw addresses at all odd sizes, between unreadable pages.

``python -m tests.guard_products`` dies of a segmentation fault if a kernel goes too far, and
prints how many products were right otherwise.
"""

from __future__ import annotations

import faulthandler
import itertools
from collections.abc import Sequence

import numpy as np

from minidnn.kernels import gemm, pointwise
from minidnn.kernels.checks import Array
from tests.guarded import guarded, guarded_allocations

ODD = range(1, 41, 2)
EVEN = (2, 6, 8, 12, 14, 16, 28, 32, 40)  # among them whole register tiles of any CPU


def main() -> None:
    """Compute all products guarded at their end, and some guarded at their start."""
    faulthandler.enable()
    rng = np.random.default_rng(0)
    x = rng.standard_normal((40, 40)).astype(np.float32)
    for ladder in (gemm.nn, gemm.nt, gemm.tn):
        ladder(x, x)
    pointwise.forward_moments(x, x)
    pointwise.forward_bias_prelu(x, x, x[0], x[0])
    count = check(x, "end", ODD) + check(x, "end", EVEN) + check(x, "start", ODD[::3])
    print(count)


def check(x: Array, at: str, sizes: Sequence[int]) -> int:
    """Compare every product of matrices of these sizes, cut from x, and return how many."""
    count = 0
    with guarded_allocations(at):
        for m, n, k in itertools.product(sizes, repeat=3):
            a, b = guarded(x[:m, :k], at), guarded(x[-k:, -n:], at)
            want = a.astype(np.float64) @ b
            for y in (
                gemm.nn["simd"](a, b),
                gemm.nt["simd"](a, guarded(b.T, at)),
                gemm.tn["simd"](guarded(a.T, at), b),
            ):
                assert np.abs(y - want).max() < 1e-4, (m, n, k, at)
                count += 1
            if k in (1, 5, 16):
                vector = guarded(x[0, :n], at)
                y = pointwise.forward_moments["simd"](a, b)[0]
                assert np.abs(y - want).max() < 1e-4, (m, n, k, at)
                pointwise.forward_bias_prelu["simd"](a, b, vector, vector)
    return count


if __name__ == "__main__":
    main()
