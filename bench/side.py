"""The loop of one side of a comparison: read a job, do it, answer; see `bench.duel`."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

Job = Callable[..., Any]


def seconds(action: Callable[[], object], at_least: float = 0.1) -> float:
    """Return the seconds of one call, averaged over as many as take `at_least` seconds."""
    calls, start = 0, time.perf_counter()
    while True:
        action()
        calls += 1
        passed = time.perf_counter() - start
        if passed >= at_least:
            return passed / calls


def affinity() -> list[int] | None:
    """Return the CPUs this process may run on, where the system tells."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None


def serve(jobs: dict[str, Job]) -> None:
    """Answer jobs from standard input until it ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # a library that prints must not break the answers
    for line in sys.stdin:
        arguments = json.loads(line)
        print(json.dumps(jobs[arguments.pop("job")](**arguments)), file=answers, flush=True)
