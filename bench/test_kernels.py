"""Time every rung of every ladder: ``python -m pytest bench`` (pytest-benchmark's options hold).

Each rung is first held against the `numpy` rung in float64, which also compiles it outside
the timer. ``--benchmark-disable`` stops there. Rates in the report's `extra_info`: GFLOP/s
where products are counted, else GB/s of arrays read and written once.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest

from bench.workloads import WORKLOADS, Workload
from minidnn.kernels.jit import num_threads
from minidnn.kernels.ladder import load_all
from tests.closeness import assert_close

REGISTRY = load_all()
BENCHES = [
    pytest.param(name, rung, work, id=f"{name}-{rung}-{work.label}")
    for name, ladder in REGISTRY.items()
    for rung in ladder.rungs
    for work in WORKLOADS.get(name, [])
]


def _drawn(work: Workload, dtype: Any) -> list[Any]:
    """Draw the arguments; both precisions start from the same float32 numbers."""
    args = work.args(np.random.default_rng(3))
    return [
        a.astype(np.float32).astype(dtype, order="C")
        if isinstance(a, np.ndarray) and a.dtype == np.float64
        else a
        for a in args
    ]


def _outputs(rung: Any, args: list[Any], work: Workload) -> list[Any]:
    result = rung(*args, **work.settings)
    if work.in_place:
        return [args[i] for i in work.in_place]
    return list(result) if isinstance(result, tuple) else [result]


def test_every_ladder_has_a_workload() -> None:
    assert set(REGISTRY) == set(WORKLOADS)


@pytest.mark.parametrize(("name", "rung", "work"), BENCHES)
def test_rung(name: str, rung: str, work: Workload, benchmark: Any) -> None:
    function = REGISTRY[name][rung]
    args = _drawn(work, np.float32)
    got = _outputs(function, args, work)
    want = _outputs(REGISTRY[name]["numpy"], _drawn(work, np.float64), work)
    for i, (g, w) in enumerate(zip(got, want, strict=True)):
        if w.dtype == np.float64 and g.dtype == np.float32:
            assert_close(g, w, terms=work.terms, dtype=np.float32, what=f"output {i}")
        else:
            assert np.array_equal(g, w) or np.allclose(g, w, rtol=1e-5)
    benchmark.pedantic(
        lambda: function(*args, **work.settings), rounds=5, iterations=1, warmup_rounds=1
    )
    if benchmark.stats:
        seconds = benchmark.stats.stats.median
        arrays = [a for a in [*args, *got] if isinstance(a, np.ndarray)]
        benchmark.extra_info["GB/s"] = round(sum(a.nbytes for a in arrays) / seconds / 1e9, 2)
        benchmark.extra_info["GFLOP/s"] = round(2 * work.macs / seconds / 1e9, 2)
        benchmark.extra_info["threads"] = num_threads()
        if hasattr(os, "sched_getaffinity"):
            benchmark.extra_info["affinity"] = sorted(os.sched_getaffinity(0))
