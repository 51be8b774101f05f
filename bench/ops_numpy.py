"""NumPy's side of `bench.compare_gemm`: its BLAS with all its threads."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from bench.gemm_cases import GemmCase
from bench.side import one_way, serve
from minidnn.measure.machine import affinity


@lru_cache(maxsize=1)
def _product(case: GemmCase) -> Callable[[], object]:
    a, b = case.transposed(*case.draw())
    out = np.empty((a.shape[0], b.shape[1]), np.float32)  # spares it fresh memory
    return lambda: np.matmul(a, b, out=out)


def gemm(case: list[Any]) -> float:
    """Return the seconds of one product."""
    return one_way(_product(GemmCase(*case)))


def about() -> dict[str, Any]:
    """Return what this side runs on."""
    threadpoolctl = importlib.import_module("threadpoolctl")  # has no types
    (blas,) = threadpoolctl.ThreadpoolController().select(user_api="blas").info()
    return {
        "threads": blas["num_threads"],
        "affinity": affinity(),
        "blas": f"{blas['internal_api']} {blas['version']}",
    }


if __name__ == "__main__":
    serve({"gemm": gemm, "about": about})
