"""How long single calls take, the slow ones too: percentiles, back to back or with idle gaps.

A mean hides what a viewer of a camera's pictures notices: the one call in a hundred that is late.
And calls one after the other hide what a pause costs: threads fall asleep, clocks drop, other
work takes over the caches. `minidnn fps` and `python -m bench.peers infer` measure both here.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

CAMERA_GAP = 0.005  # seconds that a camera leaves the CPU idle between two pictures


class Latency(NamedTuple):
    """What some calls took, in seconds.

    Attributes
    ----------
    p50, p95, p99 : float
        So many percent of the calls took at most this long.
    mean : float
    calls : int
    """

    p50: float
    p95: float
    p99: float
    mean: float
    calls: int

    @property
    def rate(self) -> float:
        """Calls per second, if they followed each other without a gap."""
        return 1 / self.mean


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest of the values that at least so many percent of them do not exceed.

    A value that was measured (the nearest rank), never one between two.

    Parameters
    ----------
    values : sequence of float
        At least one, in any order.
    percent : float
        Above 0, at most 100.

    Raises
    ------
    ValueError
        If there is no value, or no such percentile.
    """
    if not values:
        raise ValueError("percentile: expected at least one value, got none")
    if not 0 < percent <= 100:
        raise ValueError(f"percentile: expected above 0 and at most 100 percent, got {percent}")
    # 29 / 100 * 100 is 28.999... in floats; 29 * 100 / 100 is not.
    return sorted(values)[math.ceil(percent * len(values) / 100) - 1]


def summarise(seconds: Sequence[float]) -> Latency:
    """Return the percentiles of some calls' seconds.

    Raises
    ------
    ValueError
        If there is none.
    """
    p50, p95, p99 = (percentile(seconds, percent) for percent in (50, 95, 99))
    return Latency(p50, p95, p99, math.fsum(seconds) / len(seconds), len(seconds))


def paced(
    action: Callable[[], object],
    *,
    calls: int,
    gap: float = 0.0,
    limit: float = math.inf,
    warm_up: int = 3,
) -> list[float]:
    """Call repeatedly, sleeping between calls.

    Parameters
    ----------
    action : callable
    calls : int
        How many are timed, at most.
    gap : float
        Seconds of sleep before each call; 0 for back to back.
    limit : float
        Seconds after which no further call starts; one is always made.
    warm_up : int
        Calls ahead of the timed ones, paced alike.

    Returns
    -------
    list of float
        Seconds of each call, without the gaps.

    Raises
    ------
    ValueError
        If `calls` is below 1, or `gap` or `warm_up` negative.
    """
    if calls < 1 or gap < 0 or warm_up < 0:
        raise ValueError(
            "paced: expected calls >= 1, gap >= 0 and warm_up >= 0, "
            f"got calls={calls}, gap={gap}, warm_up={warm_up}"
        )
    found: list[float] = []
    began = time.perf_counter()
    for number in range(-warm_up, calls):
        if gap:
            time.sleep(gap)
        start = time.perf_counter()
        action()
        end = time.perf_counter()
        if number >= 0:
            found.append(end - start)
            if end - began >= limit:
                break
    return found
