"""The process that runs a submission: started by `runner`, as a file.

What it should do comes as one JSON object on standard input. What it found leaves
over a pipe of its own: a line of JSON, then the bytes of arrays, again and again. Standard output
is closed to the submission, so that printing results does nothing.

- ``correctness``: neither minidnn nor another library can be imported in here at all.
- ``speed``: a rung is looked up and compiled first; then minidnn is taken out of reach.

In both, Python's audit events (PEP 578) tell of other processes, native libraries and other
people's variables, and are refused to the submission.
"""

from __future__ import annotations

import builtins
import importlib.abc
import importlib.util
import json
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

MB = 1024**2
MOST_BYTES = 64 * MB  # of one answer; the largest asked for has 1.6
MOST_ARRAYS = 9  # that are looked at; no exercise wants more than 3
SPEED_SHARE = 0.4  # of the time limit, for rounds: the rest is for compiling
MOST_ROUNDS = 21
AT_LEAST = 0.02  # seconds of one turn
KEPT = 3  # timed calls, drawn at random, whose results are looked at, as is the last one's
# Audit events that no kernel needs: where its own line asks, and where the standard library
# asks on its behalf. What NumPy and Numba do is their business.
OWN_LINE = ("gc.", "object.__getattr__", "sys._getframe", "sys._current", "sys.set", "sys.addaudit")
ON_BEHALF = (
    *("ctypes.", "os.exec", "os.fork", "os.kill", "os.posix_spawn", "os.spawn", "os.system"),
    *("pty.", "signal.", "socket.", "subprocess.", "mmap.", "winreg."),
)
STANDARD = str(Path(os.__file__).parent)


class Results:
    """The pipe to the grader; takes standard output's place, which then leads nowhere."""

    def __init__(self) -> None:
        self._file = os.fdopen(os.dup(1), "wb")
        nowhere = os.open(os.devnull, os.O_RDWR)
        for standard in (0, 1, 2):
            os.dup2(nowhere, standard)

    def send(self, record: Mapping[str, Any], arrays: Sequence[Any] = ()) -> None:
        """Send a record, and arrays that belong to it."""
        data = [a.tobytes() for a in arrays]
        line = json.dumps({**record, "sizes": [len(d) for d in data]}) + "\n"
        self._file.write(line.encode() + b"".join(data))
        self._file.flush()


# --- limits ---------------------------------------------------------------------------------


def limit_memory(megabytes: int) -> None:
    """Let this process have so much more memory than now, where the system can (Linux)."""
    try:
        import resource
    except ImportError:  # Windows
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    status = Path("/proc/self/status")
    if status.exists():
        lines = status.read_text(encoding="utf-8").splitlines()
        used = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmData:"))
        # Data, not address space: threads reserve much of that and never touch it.
        most = used + megabytes * MB
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))


class Closed(importlib.abc.MetaPathFinder):
    """Refuses to import some packages, whoever asks."""

    def __init__(self, packages: Sequence[str]) -> None:
        self._packages = frozenset(packages)

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        """Raise if the package is closed; otherwise leave it to the others."""
        if name.partition(".")[0] in self._packages:
            raise ImportError(f"{name} cannot be imported in an exercise")


class ForbiddenError(BaseException):
    """The submission imports what it may not; no `except Exception` of its own hides that."""


def importer(allowed: Sequence[str], seen: list[str]) -> Callable[..., Any]:
    """Return an `__import__` for the submission alone; NumPy and Numba keep the usual one."""

    def import_(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.partition(".")[0] not in allowed:
            seen.append(name)
            raise ForbiddenError(f"imports {name}")
        return builtins.__import__(name, *args, **kwargs)

    return import_


def watch(path: str, seen: list[str]) -> None:
    """Refuse audit events that a file's own code leads to, for the rest of this process."""
    looking = False  # what this function itself does makes events, too

    def hook(event: str, _: object) -> None:
        nonlocal looking
        own, behalf = event.startswith(OWN_LINE), event.startswith(ON_BEHALF)
        if looking or not (own or behalf):
            return
        looking = True
        try:
            frame = sys._getframe(1)
            while behalf and frame.f_back and _is_standard(frame.f_code.co_filename):
                frame = frame.f_back
            asked = frame.f_code.co_filename == path
        finally:
            looking = False
        if asked:
            seen.append(event)
            raise ForbiddenError(f"reaches for {event}")

    sys.addaudithook(hook)


def _is_standard(file: str) -> bool:
    """Whether code belongs to the standard library, which people call things through."""
    inside = file.startswith(STANDARD) and "site-packages" not in file
    return inside or file.startswith("<frozen")


# --- the submission ---------------------------------------------------------------------------


class Submission:
    """The student's module, and what it must not have done."""

    def __init__(self, path: str, function: str, allowed: Sequence[str]) -> None:
        self.path = path
        self.imports: list[str] = []
        spec = importlib.util.spec_from_file_location("submission", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["submission"] = module
        own = {**vars(builtins), "__import__": importer(allowed, self.imports)}
        module.__dict__["__builtins__"] = own
        watch(path, self.imports)
        spec.loader.exec_module(module)
        self.function = getattr(module, function)

    def explain(self, error: BaseException) -> str:
        """Return an error in one line, with the submission's own line."""
        return explain(error, self.path)


def explain(error: BaseException, path: str) -> str:
    """Return an error in one line, with the last line of a file that led to it."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == path]
    try:
        text = " ".join(str(error).split())[:300]
    except BaseException:  # of a class of the submission's own
        text = "an error that cannot be told"
    return f"{type(error).__name__}: {text}" + (f" (line {lines[-1]})" if lines else "")


def returned(result: Any) -> tuple[Any, list[Any]]:
    """Return what a result is, for JSON, and its arrays if they are worth sending."""
    import numpy as np

    # Subclasses could put off the work until somebody looks, after the clock has stopped.
    many = type(result) in (tuple, list)
    parts = list(result) if many else [result]
    few = parts[:MOST_ARRAYS]
    if not all(type(p) is np.ndarray and p.dtype.kind in "fiub" for p in few):
        kinds = ", ".join(
            f"{type(p).__name__} of {p.dtype}" if type(p) is np.ndarray else type(p).__name__
            for p in few
        )
        return {"kind": f"({kinds})" if many else kinds}, []
    found = [{"dtype": str(p.dtype), "shape": p.shape} for p in few]
    if len(parts) > len(few) or sum(p.nbytes for p in few) > MOST_BYTES:
        return {"many": many, "arrays": found}, []
    return {"many": many, "arrays": found}, [np.ascontiguousarray(p) for p in few]


# --- correctness --------------------------------------------------------------------------------


def correctness(task: Mapping[str, Any], results: Results) -> None:
    """Call the function on every case; what comes back is judged by the grader."""
    import numpy as np

    sys.meta_path.insert(0, Closed(task["closed"]))
    limit_memory(task["memory"])
    submission = load(task, results)
    if submission is None:
        return
    with np.load("cases.npz", allow_pickle=False) as file:
        drawn = {name: file[name] for name in file.files}
    kept = []
    for number, case in enumerate(task["cases"]):
        results.send({"start": case["name"]})
        args = [drawn[f"{number}.{i}"] for i in range(case["count"])]
        before = [a.copy() for a in args]
        settings = {k: tuple(v) if isinstance(v, list) else v for k, v in case["settings"].items()}
        found: dict[str, Any] = {"case": case["name"]}
        arrays: list[Any] = []
        try:
            result = submission.function(*args, **settings)
            found["returned"], arrays = returned(result)
            kept.append((case["name"], arrays, [a.copy() for a in arrays]))
        except BaseException as error:
            found["error"] = submission.explain(error)
            found["memory"] = isinstance(error, MemoryError)
        pairs = zip(before, args, strict=True)
        found["changed"] = [i for i, (a, b) in enumerate(pairs) if a.tobytes() != b.tobytes()]
        results.send({**found, "imports": submission.imports}, arrays)
    overwritten = [
        name
        for name, arrays, copies in kept
        if any(a.tobytes() != b.tobytes() for a, b in zip(arrays, copies, strict=True))
    ]
    results.send({"done": True, "overwritten": overwritten})


def load(task: Mapping[str, Any], results: Results) -> Submission | None:
    """Run the file's own statements; say what went wrong otherwise."""
    results.send({"start": "import of the file"})
    try:
        return Submission(task["file"], task["function"], task["allowed"])
    except ForbiddenError as error:
        results.send({"forbidden": explain(error, task["file"])})
    except BaseException as error:
        memory = isinstance(error, MemoryError)
        results.send({"unusable": explain(error, task["file"]), "memory": memory})
    return None


# --- speed ----------------------------------------------------------------------------------------


def speed(task: Mapping[str, Any], results: Results) -> None:
    """Let the function and a rung take turns on one call, whose first number always changes."""
    import random
    import time

    clock, draw = time.perf_counter, random.Random(os.urandom(8)).random
    sys.path.insert(0, task["root"])
    from minidnn.measure.exercises.catalogue import find
    from minidnn.measure.timing import take_turns

    exercise = find(task["exercise"])
    work = exercise.work()
    args, settings = work.drawn(), work.settings
    rung = exercise.rungs().rungs[task["against"]]
    rung(*args, **settings)  # compiles

    # The rung keeps what it needs; the submission finds nothing.
    sys.path.remove(task["root"])
    for name in [n for n in sys.modules if n.partition(".")[0] in task["closed"]]:
        del sys.modules[name]
    sys.meta_path.insert(0, Closed(task["closed"]))
    limit_memory(task["memory"])
    submission = load(task, results)
    if submission is None:
        return
    calls, latest = 0, None
    kept: list[tuple[int, Any]] = []

    def theirs() -> None:
        args[0].reshape(-1)[0] = first_number(calls)
        rung(*args, **settings)

    def ours() -> None:
        nonlocal calls, latest
        calls += 1
        args[0].reshape(-1)[0] = first_number(calls)
        latest = submission.function(*args, **settings)
        # Every call so far is as likely as any other to be among those kept.
        place = int(draw() * calls) if calls > KEPT else calls - 1
        if place < KEPT:
            kept[place : place + 1] = [(calls, latest)]

    try:
        results.send({"start": "the timed call"})
        ours()  # compiles, too
        start = clock()
        ours()
        once = clock() - start
        start = clock()
        theirs()
        both = max(once, AT_LEAST) + max(clock() - start, AT_LEAST)
        rounds = max(1, min(MOST_ROUNDS, int(SPEED_SHARE * task["timeout"] / both)))
        seconds = take_turns({"ours": ours, "theirs": theirs}, rounds=rounds, at_least=AT_LEAST)
        for number, result in [*kept, (calls, latest)]:
            found, arrays = returned(result)
            results.send({"call": number, "returned": found}, arrays)
    except BaseException as error:
        memory = isinstance(error, MemoryError)
        results.send({"error": submission.explain(error), "memory": memory})
        return
    results.send({"seconds": seconds})
    results.send({"done": True})


def first_number(calls: int) -> float:
    """Return what the first number of the arguments is at a call: nothing can be remembered."""
    return calls * 0.6180339887 % 4 - 2 if calls > 1 else 5.0


def main() -> None:
    """Do what standard input says."""
    here = Path(__file__).resolve().parent
    sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != here]
    task = json.loads(sys.stdin.read())
    results = Results()
    {"correctness": correctness, "speed": speed}[task["mode"]](task, results)


if __name__ == "__main__":
    main()
