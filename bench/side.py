"""The loop of one side of a comparison: read a job, do it, answer; see `bench.duel`."""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

from minidnn.measure.latency import paced, summarise
from minidnn.measure.timing import turn

Job = Callable[..., Any]
State = Any  # what a forward pass leaves for the backward pass


def seconds(action: Callable[[], object], at_least: float) -> float:
    """Return the seconds of one call, averaged over as many as take `at_least` seconds.

    One call more goes first, uncounted: caches hold the other side's data, threads sleep.
    """
    action()
    return turn(action, at_least)


def latencies(action: Callable[[], object], calls: int, gap: float) -> dict[str, Any]:
    """Return percentiles of single calls, back to back and with idle gaps between them."""
    return {
        name: summarise(paced(action, calls=calls, gap=pause))._asdict()
        for name, pause in (("back_to_back", 0.0), ("paced", gap))
    }


def both_ways(
    forward: Callable[[], State], backward: Callable[[State], object], at_least: float = 0.1
) -> tuple[float, float]:
    """Return the seconds of one forward and of one backward pass.

    Medians over as many as take `at_least` seconds: small ones lose tenths of their speed to
    one interruption. One pair more goes first, uncounted.
    """
    backward(forward())
    ahead: list[float] = []
    back: list[float] = []
    first = time.perf_counter()
    while not back or time.perf_counter() - first < at_least:
        start = time.perf_counter()
        state = forward()
        middle = time.perf_counter()
        backward(state)
        del state  # frees what the passes kept, as training does
        end = time.perf_counter()
        ahead.append(middle - start)
        back.append(end - middle)
    return statistics.median(ahead), statistics.median(back)


def one_way(action: Callable[[], object]) -> float:
    """Return the seconds of one call, measured as by `both_ways`."""
    return both_ways(action, lambda _: None)[0]


def serve(jobs: dict[str, Job]) -> None:
    """Answer jobs from standard input until it ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # a library that prints must not break the answers
    for line in sys.stdin:
        arguments = json.loads(line)
        print(json.dumps(jobs[arguments.pop("job")](**arguments)), file=answers, flush=True)
