"""One commit's side of a comparison: answers jobs, a JSON line each, until its input ends.

Its text is handed to ``python -c`` in a folder that holds a commit's files, so that every
``minidnn`` in it is that commit's. It needs nothing but the ladders, which every commit has:
arguments come as a file.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import minidnn
from minidnn.kernels.ladder import load_all, rung_of, unknown

Action = Callable[[], Any]
OPENED: dict[str, Action] = {}


def tuples(value: Any) -> Any:
    """Turn JSON's lists into tuples, which is what kernels take."""
    return tuple(map(tuples, value)) if isinstance(value, list) else value


def about() -> dict[str, Any]:
    """Return where this side's minidnn came from, and the CPUs it may use."""
    cpus = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    return {"minidnn": str(minidnn.__file__), "affinity": cpus}


def prepare(
    ladder: str,
    rung: str | None,
    arguments: str,
    settings: dict[str, Any],
    in_place: list[int],
    result: str,
) -> None:
    """Get ready to call a rung, which compiles it; write what it computes."""
    ladders = load_all()
    if ladder not in ladders:
        raise LookupError(unknown("op", ladder, ladders))
    chosen = ladders[ladder]
    if rung is not None and rung not in chosen.rungs:
        raise LookupError(unknown(f"rung of {ladder}", rung, chosen.rungs))
    call, named = rung_of(chosen, rung), {name: tuples(value) for name, value in settings.items()}
    with np.load(arguments) as file:
        args = [file[f"arr_{i}"] for i in range(len(file.files))]

    def action() -> Any:
        return call(*args, **named)

    found = action()
    outputs = [args[i] for i in in_place] if in_place else found
    np.savez(result, *(outputs if isinstance(outputs, (list, tuple)) else [outputs]))
    OPENED["it"] = action


def seconds(at_least: float) -> float:
    """Return the seconds of one call, averaged over as many as take `at_least` seconds.

    One call more goes first, uncounted: caches hold the other side's data, threads sleep.
    """
    action = OPENED["it"]
    action()
    calls, start = 0, time.perf_counter()
    while True:
        action()
        calls += 1
        passed = time.perf_counter() - start
        if passed >= at_least:
            return passed / calls


def serve() -> None:
    """Answer jobs; an error is an answer too."""
    jobs: dict[str, Callable[..., Any]] = {"about": about, "prepare": prepare, "seconds": seconds}
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # a library that prints must not break the answers
    for line in sys.stdin:
        arguments = json.loads(line)
        try:
            answer = {"answer": jobs[arguments.pop("job")](**arguments)}
        except Exception as error:
            text = error.args[0] if isinstance(error, LookupError) else repr(error)
            answer = {"error": str(text)}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    serve()
