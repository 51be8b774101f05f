"""Matrix products: the forward pass and both gradients of every layer with a weight matrix.

| ladder | product              | in a layer with y = x @ w              |
|--------|----------------------|----------------------------------------|
| nn     | (M, K) @ (K, N)      | y = x @ w                              |
| nt     | (M, K) @ (N, K).T    | input gradient dx = dy @ w.T           |
| tn     | (K, M).T @ (K, N)    | weight gradient dw = x.T @ dy, K huge  |

| rung       | the one idea                                                           |
|------------|------------------------------------------------------------------------|
| naive      | three loops, one dot product per element                               |
| numpy      | `@`: BLAS with whatever threads it takes                               |
| loop_order | innermost loop over contiguous memory, so it vectorises; all threads   |
| blocked    | a block of an operand stays in cache, four products per number visited |
| packed     | operands copied into panels without edges, sixteen products per four   |
| blas       | BLAS on one thread per part; parts cut by shape alone, side by side    |
| simd       | a tile of sums stays in registers (`tile.dot_tile`); float64 runs blas |

One core's GFLOP/s on (25088, 128) @ (128, 256), of 115 possible: naive 2, loop_order 28,
blocked 55, packed 68, simd 105.

BLAS gives other bits with another number of threads. The blas rung never lets it choose:
the parts, and the order in which partial sums are added, follow from the shape alone.
"""

from __future__ import annotations

from ..checks import Array, ShapeError, check_array
from ..ladder import Ladder
from . import blocked, plain, simd
from .blas import (
    BLAS_TILE,
    MAX_PARTIAL,
    add_up,
    cuts,
    nn_blas,
    nt_blas,
    reduction_chunks,
    tn_blas,
    wanted_parts,
)
from .simd import multiply, multiply_transposed, transpose

__all__ = [
    "BLAS_TILE",
    "MAX_PARTIAL",
    "add_up",
    "cuts",
    "multiply",
    "multiply_transposed",
    "nn",
    "nt",
    "reduction_chunks",
    "tn",
    "transpose",
    "wanted_parts",
]


def _check(a: Array, b: Array, a_axis: int, b_axis: int) -> None:
    check_array("a", a, ("rows", "columns"))
    check_array("b", b, ("rows", "columns"), like=a)
    if a.shape[a_axis] != b.shape[b_axis]:
        raise ShapeError(
            f"product: expected a.shape[{a_axis}] == b.shape[{b_axis}], got {a.shape} and {b.shape}"
        )


def _check_nn(a: Array, b: Array) -> None:
    _check(a, b, 1, 0)


def _check_nt(a: Array, b: Array) -> None:
    _check(a, b, 1, 1)


def _check_tn(a: Array, b: Array) -> None:
    _check(a, b, 0, 0)


nn = Ladder(
    "gemm.nn",
    check=_check_nn,
    naive=plain.nn_naive,
    numpy=plain.nn_numpy,
    loop_order=plain.nn_loop_order,
    blocked=blocked.nn_blocked,
    packed=blocked.nn_packed,
    blas=nn_blas,
    simd=simd.nn_simd,
)
nt = Ladder(
    "gemm.nt",
    check=_check_nt,
    naive=plain.nt_naive,
    numpy=plain.nt_numpy,
    loop_order=plain.nt_loop_order,
    blocked=blocked.nt_blocked,
    packed=blocked.nt_packed,
    blas=nt_blas,
    simd=simd.nt_simd,
)
tn = Ladder(
    "gemm.tn",
    check=_check_tn,
    naive=plain.tn_naive,
    numpy=plain.tn_numpy,
    loop_order=plain.tn_loop_order,
    blocked=blocked.tn_blocked,
    packed=blocked.tn_packed,
    blas=tn_blas,
    simd=simd.tn_simd,
)
