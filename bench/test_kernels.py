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

from minidnn.kernels.jit import num_threads
from minidnn.kernels.ladder import load_all
from minidnn.measure.shapes import STAGES
from minidnn.measure.workloads import Workload, workloads
from tests.closeness import assert_close

REGISTRY = load_all()
WORKLOADS = workloads(STAGES, batch=8)
BENCHES = [
    pytest.param(name, rung, work, id=f"{name}-{rung}-{work.label}")
    for name, ladder in REGISTRY.items()
    for rung in ladder.rungs
    for work in WORKLOADS.get(name, [])
]


def test_every_ladder_has_a_workload() -> None:
    assert set(REGISTRY) == set(WORKLOADS)


@pytest.mark.parametrize(("name", "rung", "work"), BENCHES)
def test_rung(name: str, rung: str, work: Workload, benchmark: Any) -> None:
    function = REGISTRY[name][rung]
    args = work.drawn()
    got = work.outputs(function(*args, **work.settings), args)
    exact = work.drawn(np.float64)
    want = work.outputs(REGISTRY[name]["numpy"](*exact, **work.settings), exact)
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
        benchmark.extra_info["GB/s"] = round(work.least_bytes(args, got) / seconds / 1e9, 2)
        benchmark.extra_info["GFLOP/s"] = round(2 * work.macs / seconds / 1e9, 2)
        benchmark.extra_info["threads"] = num_threads()
        if hasattr(os, "sched_getaffinity"):
            benchmark.extra_info["affinity"] = sorted(os.sched_getaffinity(0))
