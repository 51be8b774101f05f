"""Compile many kernels at once, on all cores: Numba itself compiles one after another.

>>> with listed() as calls:  # loops in here are listed, not run
...     step()
>>> compile_all(calls)

Python's lock and Numba's own keep a process at one compilation. So helper processes
(`main`) share the list, and what they compile reaches this
process through the disk cache.
"""

from __future__ import annotations

import base64
import contextlib
import importlib
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from . import cache, jit

AT_LEAST = 2  # kernels per helper: it needs half a second to begin


class Call(NamedTuple):
    """One function to compile, by the types of its arguments."""

    module: str
    name: str
    types: tuple[Any, ...]

    def dispatcher(self) -> Any:
        """Return Numba's side of the function."""
        return getattr(importlib.import_module(self.module), self.name).dispatcher

    def __str__(self) -> str:
        return f"{self.module.rpartition('kernels.')[2]}.{self.name}"


@contextlib.contextmanager
def listed() -> Iterator[list[Call]]:
    """List the parallel kernels that this thread calls in the block, instead of running them.

    Their outputs keep whatever was in memory. Serial kernels and NumPy run as always.

    Yields
    ------
    list of Call
        Without repetitions, in the order of the first call; filled by the block.
    """
    calls: dict[Call, None] = {}
    result: list[Call] = []

    def note(function: jit.Parallel[Any, Any], args: tuple[Any, ...]) -> None:
        types = tuple(function.dispatcher.typeof_pyval(arg) for arg in args)
        calls.setdefault(Call(function.py_func.__module__, function.__name__, types))

    with jit.instead_of_running(note):
        yield result
    result.extend(calls)


def missing(calls: list[Call]) -> list[Call]:
    """Return those that neither this process nor the disk cache holds."""
    return [call for call in calls if not jit.compiled(call.dispatcher(), call.types)]


def compile_all(
    calls: list[Call],
    processes: int | None = None,
    tell: Callable[[Call, float], None] = lambda call, seconds: None,
) -> None:
    """Fill the disk cache with what is missing of these calls, side by side.

    Does nothing where that gains nothing: few kernels, one thread, no disk cache to share.
    A call that fails here fails again, with its error, where it is made.

    Parameters
    ----------
    calls : list of Call
    processes : int, optional
        How many helpers; by default one per thread of ours, at most 8 (250 MB each).
    tell : callable
        Called with each call compiled and its seconds, from another thread.
    """
    todo = missing(calls)
    wanted = min(len(todo) // AT_LEAST, 8, processes or jit.num_threads())
    if wanted < 2 or not cache.shares_cache():
        return
    queue = iter(todo[::-1])  # long ones first: the backward loops hold the most code
    helpers: list[subprocess.Popen[str]] = []
    take = threading.Lock()

    def feed(helper: subprocess.Popen[str]) -> None:
        while True:
            with take:
                call = next(queue, None)
            if call is None or (seconds := _ask(helper, call)) is None:
                return
            tell(call, seconds)

    feeders: list[threading.Thread] = []
    try:
        with contextlib.suppress(OSError):  # no room for another process: fewer do it
            for _ in range(wanted):
                helpers.append(_start())
                feeders.append(threading.Thread(target=feed, args=(helpers[-1],)))
                feeders[-1].start()
        for feeder in feeders:
            feeder.join()
    finally:  # after an interrupt too: a helper that ends lets its feeder end
        for helper in helpers:
            helper.kill()
            helper.communicate()


def _start() -> subprocess.Popen[str]:
    """Start a helper that imports this package from where this process has it.

    Not with ``-m``: that looks in the working directory first, where another copy may lie,
    and machine code is kept per source file.
    """
    package = importlib.import_module(__name__.partition(".")[0])
    root = Path(str(package.__file__)).absolute().parents[1]
    code = f"import sys; sys.path.insert(0, {str(root)!r}); import {__name__} as a; a.main()"
    return subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C is for us; we end the helpers
    )


def _ask(helper: subprocess.Popen[str], call: Call) -> float | None:
    """Have one call compiled; return the seconds, None where the helper died."""
    assert helper.stdin is not None
    assert helper.stdout is not None
    line = base64.b64encode(pickle.dumps(tuple(call))).decode()
    try:
        print(line, file=helper.stdin, flush=True)
        return float(helper.stdout.readline())
    except (OSError, ValueError):  # it is gone, or killed while we wrote
        return None


def main() -> None:
    """Compile what standard input names, a line each; answer with the seconds it took."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what prints while it compiles must not look like an answer
    for line in sys.stdin:
        call = Call(*pickle.loads(base64.b64decode(line)))
        start = time.perf_counter()
        with contextlib.suppress(Exception):
            call.dispatcher().compile(call.types)
        print(time.perf_counter() - start, file=answers, flush=True)
