"""Percentiles of latencies and paced calls, on a clock that tests turn by hand."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import pytest

from minidnn.measure import latency


class Clock:
    """A clock that moves by sleeping, and by what a call is said to take."""

    def __init__(self) -> None:
        self.now = 100.0
        self.naps: list[float] = []

    def perf_counter(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.naps.append(seconds)
        self.now += seconds

    def taking(self, seconds: Iterator[float]) -> float:
        took = next(seconds)
        self.now += took
        return took


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    turned = Clock()
    monkeypatch.setattr(latency, "time", turned)
    return turned


def test_a_percentile_is_a_measured_value_that_so_many_do_not_exceed() -> None:
    values = [float(v) for v in range(200, 0, -1)]
    for percent, expected in ((0.5, 1), (50, 100), (95, 190), (99, 198), (99.9, 200), (100, 200)):
        assert latency.percentile(values, percent) == expected
        assert sum(v <= expected for v in values) >= percent * len(values) / 100
    for percent in range(1, 101):
        assert latency.percentile([float(v) for v in range(1, 101)], percent) == percent
    assert latency.percentile([7.0], 99) == 7.0
    assert values[0] == 200.0  # left as it was


@pytest.mark.parametrize(
    ("values", "percent", "message"),
    [
        ([], 50, "at least one value"),
        ([1.0], 0, "above 0"),
        ([1.0], 100.1, "at most 100"),
        ([1.0], math.nan, "got nan"),
    ],
)
def test_no_such_percentile_is_an_error(values: list[float], percent: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        latency.percentile(values, percent)


def test_one_late_call_in_fifty_is_seen_at_the_99th_percentile_only() -> None:
    found = latency.summarise([0.002] * 98 + [0.2] * 2)
    assert found[:3] == (0.002, 0.002, 0.2)
    assert found.calls == 100
    assert found.mean == pytest.approx(0.00596)
    assert found.rate == pytest.approx(1 / 0.00596)
    with pytest.raises(ValueError, match="at least one"):
        latency.summarise([])


def test_calls_are_timed_without_their_gaps_and_without_warming_up(clock: Clock) -> None:
    seconds = iter([9.0, 9.0, 0.5, 0.25, 0.125])
    found = latency.paced(lambda: clock.taking(seconds), calls=3, gap=0.005, warm_up=2)
    assert found == pytest.approx([0.5, 0.25, 0.125])
    assert clock.naps == [0.005] * 5


def test_calls_back_to_back_do_not_sleep(clock: Clock) -> None:
    seconds = iter([1.0, 2.0])
    assert latency.paced(lambda: clock.taking(seconds), calls=2, warm_up=0) == [1.0, 2.0]
    assert clock.naps == []


def test_a_limit_ends_the_run_but_not_before_one_call(clock: Clock) -> None:
    def run(limit: float) -> int:
        always = itertools.repeat(1.0)
        return len(latency.paced(lambda: clock.taking(always), calls=10, limit=limit, warm_up=2))

    assert [run(limit) for limit in (0.0, 3.0, 4.5, 12.0, math.inf)] == [1, 1, 3, 10, 10]


@pytest.mark.parametrize(("calls", "gap", "warm_up"), [(0, 0.0, 1), (1, -1.0, 1), (1, 0.0, -1)])
def test_runs_that_make_no_sense_are_errors(calls: int, gap: float, warm_up: int) -> None:
    with pytest.raises(ValueError, match="expected calls >= 1"):
        latency.paced(lambda: None, calls=calls, gap=gap, warm_up=warm_up)
