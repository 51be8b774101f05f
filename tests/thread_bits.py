"""Run every ladder with several numbers of threads and print a hash of what it computed.

``python -m tests.thread_bits`` needs ``NUMBA_NUM_THREADS=8``, so it is a process of its own.
Each ladder runs the rung it chooses itself on the largest of its cases, which has several
chunks. A function that sums in as many parts as there are threads runs too: its bits do
change, which shows that the comparison sees it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

import numpy as np

from minidnn.kernels import jit
from minidnn.kernels.ladder import load_all
from tests.cases import Case, load_cases

THREADS = (1, 2, 3, 8)
CANARY = "sums in one part per thread"


@jit.parallel
def _sum_by_thread(x: Any, n_parts: int) -> Any:
    partial = np.zeros(n_parts, x.dtype)
    for part in jit.prange(n_parts):
        for i in range(part * x.size // n_parts, (part + 1) * x.size // n_parts):
            partial[part] += x[i]
    return partial.sum()


def _single(value: Any) -> Any:
    """A copy in float32 where it was float64: some ladders write to their arguments."""
    if not isinstance(value, np.ndarray):
        return value
    return value.astype(np.float32 if value.dtype == np.float64 else value.dtype, order="C")


def _largest(cases: list[Case]) -> tuple[Case, tuple[Any, ...]]:
    drawn = [(case, case.args(np.random.default_rng(5))) for case in cases]
    return max(drawn, key=lambda pair: sum(np.size(a) for a in pair[1]))


def hash_of(outputs: Any) -> str:
    """Return a hash of the bits of an array, or of several."""
    digest = hashlib.sha256()
    for a in outputs if isinstance(outputs, tuple) else (outputs,):
        digest.update(np.ascontiguousarray(a).tobytes())
    return digest.hexdigest()[:16]


def _calls() -> dict[str, Callable[[], Any]]:
    cases = load_cases()
    calls: dict[str, Callable[[], Any]] = {}
    for name, ladder in load_all().items():
        case, args = _largest(cases[name])

        def call(ladder: Any = ladder, case: Case = case, args: Any = args) -> Any:
            given = tuple(_single(a) for a in args)
            result = ladder(*given, **case.settings)
            return tuple(given[i] for i in case.in_place) if case.in_place else result

        calls[name] = call
    x = np.random.default_rng(5).standard_normal(100_003).astype(np.float32)
    calls[CANARY] = lambda: _sum_by_thread(x, jit.num_threads())
    return calls


def main() -> None:
    """Print {ladder: [hash per number of threads, the last of them twice]} as JSON."""
    hashes: dict[str, list[str]] = {}
    calls = _calls()
    for threads in (*THREADS, THREADS[-1]):
        jit.set_num_threads(threads)
        for name, call in calls.items():
            hashes.setdefault(name, []).append(hash_of(call()))
    print(json.dumps(hashes))


if __name__ == "__main__":
    main()
