"""Start the process that runs a submission, with limits, and read what it answers.

Nothing it sends is trusted: no pickle, no more bytes than an answer can have. Whatever it started
is ended with it, as far as it stayed in its group of processes.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import minidnn
from minidnn.measure.exercises import child
from minidnn.measure.exercises.catalogue import Case, Exercise
from minidnn.measure.exercises.rules import CLOSED, MODULES
from minidnn.tensor import Array

MOST_BYTES = 4 * child.MOST_BYTES  # of everything a process sends
PREPARE = 300.0  # seconds until the submission's own time begins: a rung may have to be compiled
MOST_RECORDS = 1000  # a test makes two
MOST_AXES = 8
NUMBERS = (
    *("bool", "float16", "float32", "float64"),
    *(f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)),
)
GRACE = 5.0  # seconds in which a process that closed its pipe has to end


class Limits(NamedTuple):
    """What a submission may use: seconds of each of its two runs, megabytes of memory."""

    timeout: float
    memory: int


@dataclass
class Answer:
    """One record of the child, and the arrays that came with it."""

    record: dict[str, Any]
    arrays: list[Array] = field(default_factory=list)


@dataclass
class Ran:
    """What a process sent before it ended, and how it ended.

    Attributes
    ----------
    answers : list of Answer
    ended : str
        'done', 'timeout', or how it crashed.
    """

    answers: list[Answer]
    ended: str

    def find(self, key: str) -> Answer | None:
        """Return the first answer that has a key."""
        return next((answer for answer in self.answers if key in answer.record), None)

    @property
    def during(self) -> str:
        """Return what was last begun."""
        started = [a.record["start"] for a in self.answers if "start" in a.record]
        return line(started[-1]) if started else "start"


def correctness(exercise: Exercise, file: Path, cases: Sequence[Case], limits: Limits) -> Ran:
    """Call a submission on all cases, in a process without minidnn."""
    arrays = {f"{n}.{i}": a for n, case in enumerate(cases) for i, a in enumerate(case.args)}
    listed = [{"name": c.name, "count": len(c.args), "settings": c.settings} for c in cases]
    return _run({"mode": "correctness", "cases": listed}, exercise, file, limits, arrays)


def speed(exercise: Exercise, file: Path, against: str, limits: Limits) -> Ran:
    """Time a submission in turns with a rung."""
    return _run({"mode": "speed", "against": against}, exercise, file, limits, {})


def _run(
    task: Mapping[str, Any],
    exercise: Exercise,
    file: Path,
    limits: Limits,
    arrays: Mapping[str, Array],
) -> Ran:
    with tempfile.TemporaryDirectory(prefix="minidnn-exercise-") as name:
        folder = Path(name).resolve()
        copy = folder / "submission.py"  # so that nothing is written beside the student's file
        shutil.copyfile(file, copy)
        if arrays:
            np.savez(folder / "cases.npz", **arrays)  # type: ignore[arg-type]  # names by number
        whole = {
            **task,
            "file": str(copy),
            "exercise": exercise.name,
            "function": exercise.name,
            "allowed": sorted(MODULES),
            "closed": CLOSED,
            "root": str(Path(minidnn.__file__).resolve().parent.parent),
            **limits._asdict(),
        }
        return _attend(json.dumps(whole).encode(), folder, limits.timeout)


def _attend(task: bytes, folder: Path, timeout: float) -> Ran:
    """Run the child in a folder until it ends or its time is up."""
    process = subprocess.Popen(
        [sys.executable, child.__file__],
        cwd=folder,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        received = _Received(process)
        with contextlib.suppress(BrokenPipeError):
            assert process.stdin is not None
            process.stdin.write(task)
            process.stdin.close()
        received.started.wait(PREPARE)
        in_time = received.wait(timeout)
        if in_time:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GRACE)
        code = process.poll()
    finally:
        _end(process)
    received.close(GRACE)
    answers = parse(received.data)
    if received.too_much:
        return Ran(answers, f"sent more than {MOST_BYTES:,} bytes")
    if answers and "done" in answers[-1].record:
        return Ran(answers, "done")
    if not in_time or code is None:
        return Ran(answers, "timeout")
    if code == 0 and answers and not answers[-1].record.keys() & {"start", "case"}:
        return Ran(answers, "done")  # said what was wrong, and ended by itself
    return Ran(answers, _how(code))


class _Received:
    """Reads a pipe in a thread of its own, so that a silent process can be left alone."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.data = b""
        self.too_much = False
        self.started = threading.Event()  # the first record came, or the end
        self._pipe = process.stdout
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self._pipe is not None
        parts, size = [], 0
        while part := os.read(self._pipe.fileno(), 1 << 20):
            self.started.set()
            parts.append(part)
            size += len(part)
            if size > MOST_BYTES:
                self.too_much = True
                break
        self.data = b"".join(parts)
        self.started.set()

    def wait(self, timeout: float) -> bool:
        """Return whether the pipe came to its end in time."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def close(self, timeout: float) -> None:
        """Close the pipe of a process that was ended."""
        if self.wait(timeout) and self._pipe is not None:
            self._pipe.close()


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process and its group, which only it and what it started belong to."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    process.wait()


def _how(code: int) -> str:
    """Return how a process ended that did not get to its end."""
    if code < 0:
        with contextlib.suppress(ValueError):
            return f"killed by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"


def parse(data: bytes) -> list[Answer]:
    """Take apart what was received; a broken record and all behind it are left out."""
    answers: list[Answer] = []
    place = 0
    while len(answers) < MOST_RECORDS and (end := data.find(b"\n", place)) >= 0:
        try:
            record = json.loads(data[place:end])
            sizes = record["sizes"]
        except (ValueError, KeyError, TypeError, RecursionError):
            break
        place = end + 1
        if not (isinstance(sizes, list) and all(type(n) is int and n >= 0 for n in sizes)):
            break
        if sum(sizes) > len(data) - place:
            break
        answer = Answer(record)
        for size, entry in zip(sizes, _described(record, len(sizes)), strict=True):
            array = _array(data[place : place + size], entry)
            if array is not None:
                answer.arrays.append(array)
            place += size
        answers.append(answer)
    return answers


def _described(record: Any, count: int) -> list[Any]:
    returned = record.get("returned")
    arrays = returned.get("arrays") if isinstance(returned, dict) else None
    return arrays if isinstance(arrays, list) and len(arrays) == count else [{}] * count


def _array(data: bytes, entry: Any) -> Array | None:
    """Return an array of numbers; None where bytes and description do not fit."""
    if not isinstance(entry, dict) or entry.get("dtype") not in NUMBERS:
        return None
    shape, dtype = entry.get("shape"), np.dtype(entry["dtype"])
    if not (isinstance(shape, list) and all(type(n) is int and n >= 0 for n in shape)):
        return None
    if len(shape) > MOST_AXES or math.prod(shape) * dtype.itemsize != len(data):
        return None
    return np.frombuffer(data, dtype).reshape(shape)


def line(text: object) -> str:
    """Return what a process says in one line that can be printed."""
    short = " ".join(str(text).split())[:300]
    return short.encode("utf-8", "replace").decode("utf-8")
