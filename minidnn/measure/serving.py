"""How fast networks serve: latency of single calls, frames per second, joules of a frame.

Several ways of serving (networks, precisions, numbers of threads) take turns, each back to back
and as a camera would call, with idle time before every call. So all of them meet the same
disturbances, and their ratios, round by round, can be believed on a busy machine too.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from minidnn.measure.energy import Meter
from minidnn.measure.latency import paced, summarise
from minidnn.measure.limits import check_time
from minidnn.threads import num_threads, set_num_threads

ROUNDS = 9  # at most
WARM_UP = 3  # calls after each change of who serves: the caches hold another's data
FIRST, FIRST_SECONDS = 20, 1.0  # calls of each before any is timed
MOST = 1_000_000  # calls of one turn
TIME_LIMIT = 3600.0  # seconds of measuring


@dataclass
class Case:
    """One way of serving.

    Attributes
    ----------
    network, precision : str
    threads : int
    call : callable or None
        Computes one batch.
    missing : str or None
        Why there is no call.
    """

    network: str
    precision: str
    threads: int
    call: Callable[[], object] | None = None
    missing: str | None = None


@dataclass
class _Pace:
    """What the calls of a case took at one pace; a list per round."""

    gap: float
    rounds: list[list[float]] = field(default_factory=list)
    joules: list[float | None] = field(default_factory=list)

    def turn(self, call: Callable[[], object], limit: float, meter: Meter) -> None:
        paced(call, calls=WARM_UP, gap=self.gap, limit=limit, warm_up=0)
        before = meter.read()
        self.rounds.append(paced(call, calls=MOST, gap=self.gap, limit=limit, warm_up=0))
        self.joules.append(meter.joules_since(before))

    def as_dict(self, batch: int) -> dict[str, Any]:
        seconds = list(itertools.chain.from_iterable(self.rounds))
        found = summarise(seconds)
        spent = [joules for joules in self.joules if joules is not None]
        return {
            **found._asdict(),
            "frames_per_second": batch * found.rate,
            "joules_a_frame": sum(spent) / (batch * len(seconds)) if spent else None,
            "round_p50": [statistics.median(calls) for calls in self.rounds],
        }


class _Server:
    """A case that is served, at all paces."""

    def __init__(self, case: Case, gaps: Iterable[float]) -> None:
        assert case.call is not None
        self.threads, self.call = case.threads, case.call
        self.paces = [_Pace(gap) for gap in gaps]

    def first(self) -> float:
        """Warm up; return the seconds of a call."""
        set_num_threads(self.threads)
        calls = paced(self.call, calls=FIRST, limit=FIRST_SECONDS, warm_up=0)
        return statistics.median(calls)

    def turn(self, limit: float, meter: Meter) -> None:
        """Serve at every pace, for so many seconds each."""
        set_num_threads(self.threads)
        for pace in self.paces:
            pace.turn(self.call, limit, meter)


def measure(
    cases: Sequence[Case], *, batch: int, seconds: float, idle: float, meter: Meter | None = None
) -> dict[str, Any]:
    """Let all cases serve in turns.

    Parameters
    ----------
    cases : sequence of Case
    batch : int
        Frames of a call.
    seconds : float
        For all turns together. Where that is short for the calls there are fewer rounds, and at
        last one call in each turn.
    idle : float
        Seconds without work before every call, in half of the turns; 0 leaves those out.
    meter : Meter, optional
        Of joules.

    Returns
    -------
    dict
        What JSON can hold: the settings, ``joules_missing`` (a reason, or None), and of each case
        ``network``, ``precision``, ``threads``, ``missing``, and where it was measured
        ``back_to_back`` and ``paced``: percentiles in seconds, frames per second, joules.

    Raises
    ------
    InputError
        If it would take more than an hour.
    """
    check_time(seconds, TIME_LIMIT, "measuring")
    meter = meter or Meter()
    gaps = {"back_to_back": 0.0, **({"paced": idle} if idle else {})}
    servers = {i: _Server(case, gaps.values()) for i, case in enumerate(cases) if case.call}
    before = num_threads()
    try:
        took = sum(server.first() for server in servers.values())
        shortest = 2 * (len(gaps) * took + len(servers) * idle)  # a round of single calls
        check_time(shortest, TIME_LIMIT, "measuring")
        rounds = min(ROUNDS, max(1, int(seconds / max(shortest, 1e-9))))
        limit = seconds / (rounds * max(1, len(servers)) * len(gaps))
        order = list(servers.values())
        for _ in range(rounds):
            for server in order:
                server.turn(limit, meter)
            order = [*order[1:], *order[:1]]
    finally:
        set_num_threads(before)
    return {
        "batch": batch,
        "seconds": seconds,
        "idle": idle,
        "rounds": rounds,
        "joules_missing": meter.missing,
        "cases": [
            _as_dict(case, servers.get(i), tuple(gaps), batch) for i, case in enumerate(cases)
        ],
    }


def _as_dict(case: Case, server: _Server | None, paces: Sequence[str], batch: int) -> Any:
    found: dict[str, Any] = {
        "network": case.network,
        "precision": case.precision,
        "threads": case.threads,
        "missing": case.missing,
    }
    if server is not None:
        found |= {p: pace.as_dict(batch) for p, pace in zip(paces, server.paces, strict=True)}
    return found
