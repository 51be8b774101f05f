"""Comparisons as ratios of interleaved runs, each side in a process of its own.

Two libraries in one process would fight over the CPUs with their thread pools, two versions of
one library cannot be imported together, and two runs one after the other would meet different
clocks and neighbours. So each side lives in its own process, waits while another works, and is
asked for one measurement at a time, in turns; who goes first changes from round to round.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

T = TypeVar("T")
S = TypeVar("S", bound="Side")

# libgomp's idle threads spin for some milliseconds: let them fall asleep before the next turn.
REST = 0.05
LAST_LINES = 12
THREAD_VARIABLES = (
    "NUMBA_NUM_THREADS",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
)


class SideError(RuntimeError):
    """A side of a comparison ended before it answered."""


class Side:
    """A program in its own process, answering one JSON line per JSON line.

    Parameters
    ----------
    name : str
        What tables call it.
    command : sequence of str
        What to start.
    cwd : Path
        Where.
    threads : int
        How many threads it may use.
    env : mapping, optional
        Added to the environment.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        cwd: Path,
        threads: int,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.started = time.perf_counter()
        # A file, because nobody reads along: a full pipe would stop the process.
        self._errors = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115 - lives as long
        self.process = subprocess.Popen(
            command,
            cwd=cwd,
            env={**os.environ, **dict.fromkeys(THREAD_VARIABLES, str(threads)), **(env or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )

    def ask(self, job: str, **arguments: Any) -> Any:
        """Let the side do one job and return its answer.

        Raises
        ------
        SideError
            If the process ends instead; with the last lines it wrote on standard error.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps({"job": job, **arguments}) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            code = self.process.wait()
            raise SideError(f"{self.name}: ended during {job!r} (exit {code}); {self._said()}")
        return json.loads(line)

    def age(self) -> float:
        """Return the seconds since the process was started."""
        return time.perf_counter() - self.started

    def _said(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read().rstrip().splitlines()[-LAST_LINES:]
        if not lines:
            return "it wrote nothing on standard error"
        return "its last lines on standard error:\n" + "\n".join(f"  {line}" for line in lines)

    def close(self) -> None:
        """Let the process end; kill it if it does not."""
        if self.process.stdin is not None and not self.process.stdin.closed:
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.close()
        try:
            self.process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        self._errors.close()

    def __enter__(self: S) -> S:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            self.process.kill()
        self.close()


def take_turns(asks: Mapping[str, Callable[[], T]], rounds: int) -> dict[str, list[T]]:
    """Ask all in turns, as many times as there are rounds, each round in another order."""
    answers: dict[str, list[T]] = {name: [] for name in asks}
    names = list(asks)
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            time.sleep(REST)
            answers[name].append(asks[name]())
    return answers
