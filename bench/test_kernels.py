"""Time every rung of every ladder: ``python -m pytest bench`` (pytest-benchmark's options hold).

Each rung is first held against the `numpy` rung in float64 on a few images (``--full``: on all),
which also compiles it outside the timer. ``--benchmark-disable`` stops there. The report's
`extra_info` holds rates and their share of the measured peaks; see `bench.kernel_cases` for what
a run leaves out.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import pytest

from bench.conftest import is_full
from bench.kernel_cases import CHECKED, SLOW, TOO_SLOW, KernelCase, cases, rates
from minidnn.kernels.ladder import load_all
from minidnn.measure.machine import affinity
from minidnn.measure.peaks import Peaks
from minidnn.measure.timing import turn
from minidnn.measure.workloads import Workload
from minidnn.threads import num_threads
from tests.closeness import assert_close

REGISTRY = load_all()
CASES = cases()
TURN = 0.005  # seconds of a round: short calls repeat within it
# Calls of up to so many seconds get so many rounds: a long call is a mean over time by itself.
ROUNDS = {0.01: 5, 1.0: 3, float("inf"): 1}


def test_every_ladder_has_a_workload() -> None:
    assert set(REGISTRY) == {case.ladder for case in CASES}


def rounds_for(seconds: float) -> int:
    """Return how often a call that takes so long is timed."""
    return next(rounds for longest, rounds in ROUNDS.items() if seconds <= longest)


@lru_cache(maxsize=1)
def _drawn(group: str) -> list[Any]:
    """Draw what the rungs of a group are timed on, once for all of them."""
    return next(case for case in CASES if case.group == group).work.drawn()


@lru_cache(maxsize=1)
def _expected(group: str, batch: int) -> list[Any]:
    """Return what the rungs of a group should compute for so many images."""
    case = next(case for case in CASES if case.group == group)
    work = case.at(batch)
    exact = work.drawn(np.float64)
    return work.outputs(REGISTRY[case.ladder]["numpy"](*exact, **work.settings), exact)


def _check(case: KernelCase, work: Workload, args: list[Any], batch: int) -> None:
    got = work.outputs(REGISTRY[case.ladder][case.rung](*args, **work.settings), args)
    for i, (g, w) in enumerate(zip(got, _expected(case.group, batch), strict=True)):
        if w.dtype == np.float64 and g.dtype == np.float32:
            assert_close(g, w, terms=work.terms, dtype=np.float32, what=f"output {i}")
        else:
            assert np.array_equal(g, w) or np.allclose(g, w, rtol=1e-5)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.label)
def test_rung(
    case: KernelCase, benchmark: Any, pytestconfig: pytest.Config, peaks: Callable[[], Peaks]
) -> None:
    function, work, full = REGISTRY[case.ladder][case.rung], case.work, is_full(pytestconfig)
    images = case.batch if full else min(case.batch, CHECKED)
    few = case.at(images)
    args = few.drawn()
    _check(case, few, args, images)
    benchmark.group = case.group
    if not benchmark.enabled:
        benchmark.pedantic(lambda: function(*args, **few.settings))
        return
    seconds = turn(lambda: function(*args, **few.settings), 0.0) * case.batch / images
    if seconds > SLOW and not full:
        pytest.skip(TOO_SLOW)
    args = _drawn(case.group)
    benchmark.pedantic(
        lambda: function(*args, **work.settings),
        rounds=rounds_for(seconds),
        iterations=max(1, int(TURN / seconds)),
        warmup_rounds=1 if seconds <= 1 else 0,
    )
    outputs = work.outputs(function(*args, **work.settings), args)
    least = work.least_bytes(args, outputs)
    median = benchmark.stats.stats.median
    benchmark.extra_info |= rates(case.ladder, work, least, median, peaks())
    benchmark.extra_info |= {"threads": num_threads(), "affinity": affinity()}
    benchmark.extra_info |= {"ladder": case.ladder, "rung": case.rung, "at": case.at_text}
