"""The roofline (Williams, Waterman, Patterson 2009): how far kernels are from what is possible.

A call that computes `flops` and moves `least_bytes` takes at least ``flops / peak`` seconds to
compute, and ``least_bytes / bandwidth`` to move; the longer of the two is its ideal time, and the
share of its roof is that over the time measured. The bandwidth is that of the smallest place
that holds all its arrays, because calls repeat: a small array is in a cache by then.

Kernels without multiply-accumulates are placed by bytes alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from minidnn.errors import ConfigError
from minidnn.kernels.ladder import load_all, unknown
from minidnn.measure import ladders, rungs, timing
from minidnn.measure.int8_work import PEAK_NOTE, is_8_bit, peak_of
from minidnn.measure.limits import check_memory, check_time
from minidnn.measure.peaks import MEMORY, Peaks
from minidnn.measure.tables import Table

ROUNDS = 5
LIMIT = 300.0  # seconds that all timings together may take
COMPUTE = "compute"


@dataclass(frozen=True)
class Placed:
    """One call, or several as one, under the roof.

    Attributes
    ----------
    ladder, rung : str
    label : str
        Its shape, or how many.
    flops, least_bytes : int
        Operations (two per MAC; 0 where bytes alone count), and bytes moved at least.
    seconds : float
        Measured.
    compute_seconds, memory_seconds : float
        What the machine's peaks allow.
    ideal_seconds : float
        The longer of the two; for several calls the sum over them.
    place : str
        Where its arrays lie: ``"L1"`` ... or ``"memory"``.
    bound : str
        ``"compute"`` or ``"memory"``: which of the two is longer; ``"both"`` if calls differ.
    """

    ladder: str
    rung: str
    label: str
    flops: int
    least_bytes: int
    seconds: float
    compute_seconds: float
    memory_seconds: float
    ideal_seconds: float
    place: str
    bound: str

    @property
    def intensity(self) -> float:
        """Operations per byte."""
        return self.flops / self.least_bytes

    @property
    def rate(self) -> float:
        """Operations per second."""
        return self.flops / self.seconds

    @property
    def bytes_rate(self) -> float:
        """Least bytes per second."""
        return self.least_bytes / self.seconds

    @property
    def share(self) -> float:
        """Share of its roof."""
        return self.ideal_seconds / self.seconds

    def as_dict(self) -> dict[str, Any]:
        """Return plain numbers and strings, for JSON."""
        return {
            **asdict(self),
            "intensity": self.intensity,
            "flops_per_second": self.rate,
            "bytes_per_second": self.bytes_rate,
            "share": self.share,
        }


def place(
    ladder: str,
    rung: str,
    label: str,
    work: tuple[int, int],
    seconds: float,
    peaks: Peaks,
) -> Placed:
    """Put one call under the roof.

    Parameters
    ----------
    ladder, rung, label : str
    work : (int, int)
        Multiply-accumulates and least bytes.
    seconds : float
        Of one call.
    peaks : Peaks
    """
    flops, least_bytes = 2 * work[0], work[1]
    level = peaks.level(least_bytes)
    compute, memory = flops / peak_of(ladder, peaks.flops), least_bytes / level.bandwidth
    return Placed(
        ladder,
        rung,
        label,
        flops,
        least_bytes,
        seconds,
        compute,
        memory,
        max(compute, memory),
        level.name,
        COMPUTE if compute > memory else MEMORY,
    )


def together(found: Sequence[Placed]) -> Placed:
    """Return several calls of a ladder as one, one after the other."""
    if len(found) == 1:
        return found[0]
    bounds = {one.bound for one in found}
    return Placed(
        found[0].ladder,
        ", ".join(dict.fromkeys(one.rung for one in found)),
        f"{len(found)} shapes",
        sum(one.flops for one in found),
        sum(one.least_bytes for one in found),
        sum(one.seconds for one in found),
        sum(one.compute_seconds for one in found),
        sum(one.memory_seconds for one in found),
        sum(one.ideal_seconds for one in found),
        ", ".join(sorted({one.place for one in found})),
        bounds.pop() if len(bounds) == 1 else "both",
    )


def by_ladder(found: Iterable[Placed]) -> list[Placed]:
    """Return one point per ladder."""
    groups: dict[str, list[Placed]] = {}
    for one in found:
        groups.setdefault(one.ladder, []).append(one)
    return [together(group) for group in groups.values()]


# --- measuring --------------------------------------------------------------------------


def chosen_cases(ops: Sequence[str], rung: str | None, size: str) -> list[ladders.Case]:
    """Return the ladders of some ops (all if none are named) at the shapes of a size.

    With a rung, those ladders only that have it.

    Raises
    ------
    ConfigError
        If an op is unknown, or no ladder of these has the rung; the nearest name is given.
    """
    known = load_all()
    named = [name for op in ops for name in rungs.ladders_of(op)]
    names = list(dict.fromkeys(named)) or list(known)
    any_rung = dict.fromkeys(each for name in names for each in known[name].rungs)
    if rung is not None and rung not in any_rung:
        raise ConfigError(unknown("rung", rung, any_rung))
    having = [name for name in names if rung is None or rung in known[name].rungs]
    return [case for name in having for case in ladders.cases(name, size=size)]


def measure(
    cases: Sequence[ladders.Case],
    peaks: Peaks,
    *,
    batch: int,
    rung: str | None = None,
    limit: float = LIMIT,
) -> list[Placed]:
    """Time ladders and put them under the roof.

    Parameters
    ----------
    cases : sequence of ladders.Case
    peaks : Peaks
        This machine's.
    batch : int
        Images.
    rung : str, optional
        Of all of them; by default what a call of each ladder runs.
    limit : float
        Seconds that all of it may take.

    Raises
    ------
    InputError
        If a case needs more memory than there is, or all of them more time.
    """
    for case in cases:
        check_memory(case.bytes_needed(batch), f"roofline: {case.ladder} at {batch} x {case.label}")
    seconds = 0.0
    for case in cases:
        name = rung or load_all()[case.ladder].fastest
        seconds += ladders.estimate(case, name, batch, limit) * (ROUNDS + 1)
        check_time(seconds, limit, f"roofline, at {case.ladder}")
    return [_measure(case, peaks, batch, rung) for case in cases]


def _measure(case: ladders.Case, peaks: Peaks, batch: int, rung: str | None) -> Placed:
    ladder, work = load_all()[case.ladder], case.work(batch)
    args, settings = work.drawn(), work.settings
    name = rung or ladder.choose(*args, **settings)
    function = ladder[name]
    outputs = work.outputs(function(*args, **settings), args)
    counted = (work.macs, work.least_bytes(args, outputs))
    time = timing.timed(lambda: function(*args, **settings), rounds=ROUNDS)
    return place(case.ladder, name, work.label, counted, time.seconds, peaks)


# --- showing ---------------------------------------------------------------------------

COLUMNS = (
    "kernel", "rung", "shape", "FLOP/byte", "GFLOP/s", "GB/s", "arrays in", "bound", "of its roof"
)  # fmt: skip
NOTE = (
    "FLOP/byte: two operations per MAC over the least bytes, inputs read once and outputs written "
    "once. The roof is the peak (bound: compute), or the\nbandwidth of the smallest place that "
    "holds the arrays, times FLOP/byte (bound: memory). Kernels without MACs are placed by GB/s.\n"
    "More than 100 % of memory: a part of the arrays stayed in a cache. " + PEAK_NOTE
)


def table(found: Iterable[Placed], batch: int) -> Table:
    """Return points as a table: those with MACs by intensity first, then those without."""
    ordered = sorted(found, key=lambda one: (not one.flops, -one.intensity, -one.share))
    return Table(
        f"kernels under the roof, batch {batch}", COLUMNS, [_cells(one) for one in ordered]
    )


def roofs(found: Iterable[Placed], peaks: Peaks) -> dict[str, float]:
    """Return the machine's peaks of arithmetic by name, one for bytes too if points need it."""
    eight = next((one.ladder for one in found if is_8_bit(one.ladder)), None)
    return {**peaks.by_isa, **({"8-bit": peak_of(eight, peaks.flops)} if eight else {})}


def _cells(one: Placed) -> list[str]:
    return [
        one.ladder,
        one.rung,
        one.label,
        f"{one.intensity:.3g}" if one.flops else "-",
        f"{one.rate / 1e9:.4g}" if one.flops else "-",
        f"{one.bytes_rate / 1e9:.3g}",
        one.place,
        one.bound,
        f"{one.share:.0%}",
    ]


def peak_tables(peaks: Peaks) -> list[Table]:
    """Return the machine's peaks as tables."""
    one = peaks.alone or peaks
    many = [f"{peaks.threads} threads"] if peaks.alone else []
    flops = [
        [isa, *_pair(one.by_isa.get(isa), rate if many else None, 4)]
        for isa, rate in peaks.by_isa.items()
    ]
    # Beside each other: the sets differ where threads share a cache.
    alone = {level.name: level for level in one.levels}
    rates = []
    for level in peaks.levels:
        first = alone.get(level.name)
        for way in ("read", "copy"):
            label = level.label if way == "read" else ""
            rate = getattr(level, way) if many else None
            rates.append([label, way, *_pair(first and getattr(first, way), rate, 3)])
    return [
        Table("float32 multiply-adds, GFLOP/s", ("instructions", "1 thread", *many), flops),
        Table("bandwidth, GB/s", ("buffer of a thread", "", "1 thread", *many), rates),
    ]


def _pair(one: float | None, many: float | None, digits: int) -> list[str]:
    cells = ["-" if one is None else f"{one / 1e9:.{digits}g}"]
    return cells if many is None else [*cells, f"{many / 1e9:.{digits}g}"]
