"""Comparisons as ratios of interleaved runs, each side in a process of its own.

Two libraries in one process would fight over the CPUs with their thread pools, and two runs
one after the other would meet different clocks and neighbours. So each side lives in its own
process, waits while the other works, and is asked for one measurement at a time, in turns;
who goes first alternates. What is believed is the median over rounds of the ratio.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
# libgomp's idle threads spin for some milliseconds: let them fall asleep before the other's turn.
REST = 0.05
THREAD_VARIABLES = (
    "NUMBA_NUM_THREADS",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
)


class Side:
    """One library in its own process, answering one JSON line per JSON line.

    Parameters
    ----------
    module : str
        What to start, such as ``bench.side_torch``.
    threads : int
        How many threads it may use.
    """

    def __init__(self, module: str, threads: int) -> None:
        self.name = module.rpartition("side_")[2]
        env = {**os.environ, **dict.fromkeys(THREAD_VARIABLES, str(threads))}
        self.process = subprocess.Popen(
            [sys.executable, "-m", module],
            cwd=ROOT,
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, job: str, **arguments: Any) -> Any:
        """Let the side do one job and return its answer."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"job": job, **arguments}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name}: ended during {job} (exit {self.process.wait()})")
        return json.loads(line)

    def __enter__(self) -> Side:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.process.stdin is not None:
            self.process.stdin.close()
        self.process.wait(timeout=60)


class Result(NamedTuple):
    """Seconds per side, and the ratio ours / theirs with its spread over rounds."""

    ours: float
    theirs: float
    ratio: float
    low: float
    high: float


def compare(ours: list[float], theirs: list[float]) -> Result:
    """Take medians of seconds and of the rounds' ratios; low and high are the extreme rounds."""
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    medians = statistics.median(ours), statistics.median(theirs), statistics.median(ratios)
    return Result(*medians, min(ratios), max(ratios))


def duel(ours: Side, theirs: Side, job: str, *, rounds: int, **arguments: Any) -> Result:
    """Ask both sides in turns for the seconds of one job."""
    seconds: dict[Side, list[float]] = {ours: [], theirs: []}
    for number in range(rounds):
        for side in (ours, theirs) if number % 2 == 0 else (theirs, ours):
            time.sleep(REST)
            seconds[side].append(side.ask(job, **arguments))
    return compare(seconds[ours], seconds[theirs])


def cpu_name() -> str:
    """Return the CPU's name as the system gives it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def surroundings(threads: int, sides: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a number is worth nothing without: CPU, affinity, threads, versions, date."""
    affinity = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "cpu": cpu_name(),
        "affinity": affinity,
        "threads": threads,
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("numpy", "numba", "torch")},
        "sides": dict(sides),
    }


def default_threads() -> int:
    """Return the number of CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
