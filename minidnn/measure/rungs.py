"""Time the rungs of an op in turns, in this process: what ``minidnn bench`` measures.

Every rung is first held against the `numpy` rung in float64, on a few images, which also
compiles it outside the timer. What would take too much memory or time is refused before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from minidnn.errors import ConfigError, InputError
from minidnn.kernels.ladder import load_all, rung_of, unknown
from minidnn.measure.compare import KEYS, LEAST_ROUNDS, paired, row
from minidnn.measure.limits import check_memory, check_time
from minidnn.measure.shapes import SIZES, shapes_of
from minidnn.measure.tables import Table
from minidnn.measure.timing import summarise, take_turns, turn
from minidnn.measure.workloads import Workload, workloads

ROUNDS = 21
AT_LEAST = 0.01  # seconds of a turn
CHECKED = 4  # images that results are compared on
SAME = 1e-3  # of an array's norm
TIES = 1e-3  # of an integer array's elements: rounding may turn a winner that was nearly none
DRAWN = 3  # times the float32 arrays: their own, a copy in float64
LIMIT = 900.0  # seconds

Action = Callable[[], object]


class Case(NamedTuple):
    """A ladder, and what to call it with."""

    ladder: str
    work: Workload
    batch: int
    size: str

    def at(self, batch: int) -> Workload:
        """Return the same work for another number of images."""
        works = workloads(SIZES[self.size], batch)[self.ladder]
        return next(work for work in works if work.label == self.work.label)

    def describe(self) -> dict[str, Any]:
        """Return it as JSON holds it."""
        return {"ladder": self.ladder, "label": self.work.label, "batch": self.batch}


class Named(NamedTuple):
    """An op or one of its ladders, and perhaps a rung: ``depthwise.forward:simd``."""

    op: str
    rung: str | None

    def __str__(self) -> str:
        return self.op if self.rung is None else f"{self.op}:{self.rung}"


# --- names ------------------------------------------------------------------------------------


def named(text: str) -> Named:
    """Read ``OP`` or ``OP:RUNG``.

    Raises
    ------
    ConfigError
        If there is no such op, or it has no such rung; with the nearest name.
    """
    op, colon, rung = text.partition(":")
    ladders = ladders_of(op)
    if colon:
        check_rung(ladders, rung)
    return Named(op, rung if colon else None)


def ladders_of(op: str) -> list[str]:
    """Return the ladders of an op, such as depthwise, or the one of that name.

    Raises
    ------
    ConfigError
        If there is none; the nearest name is given.
    """
    names = list(load_all())
    found = [name for name in names if op in (name, name.partition(".")[0])]
    if not found:
        known = sorted({n.partition(".")[0] for n in names} | ({*names} if "." in op else set()))
        raise ConfigError(unknown("op", op, known))
    return found


def check_rung(ladders: Sequence[str], rung: str) -> None:
    """Raise unless one of the ladders has a rung of that name."""
    registry = load_all()
    rungs = dict.fromkeys(rung for name in ladders for rung in registry[name].rungs)
    if rung not in rungs:
        raise ConfigError(unknown(f"rung of {ladders[0]}", rung, rungs))


def slow_rungs(ladder: str) -> frozenset[str]:
    """Return the rungs that Python itself runs: they are for classroom sizes."""
    return frozenset(getattr(load_all()[ladder], "slow", ()))


def rungs_for(ladder: str, size: str, wanted: Sequence[str]) -> list[str]:
    """Return the wanted rungs that a ladder has; all that fit the size if none is named."""
    slow = slow_rungs(ladder) if size != "classroom" else frozenset()
    rungs = load_all()[ladder].rungs
    return [rung for rung in rungs if (rung in wanted if wanted else rung not in slow)]


def cases(op: str, size: str, batch: int) -> list[Case]:
    """Return what an op is measured on.

    Raises
    ------
    ConfigError
        If there is no such op or size, or the batch is not positive.
    """
    shapes = shapes_of(size)
    if batch < 1:
        raise ConfigError(f"--batch: expected at least 1 image, got {batch}")
    at = workloads(shapes, batch)
    return [Case(name, work, batch, size) for name in ladders_of(op) for work in at[name]]


def check_rounds(rounds: int) -> None:
    """Raise if there are too few rounds to say anything."""
    if rounds < LEAST_ROUNDS:
        raise ConfigError(
            f"--rounds: expected at least {LEAST_ROUNDS}, for a median with an interval, "
            f"got {rounds}"
        )


# --- before anything is timed -------------------------------------------------------------------


def bytes_of(case: Case, batch: int) -> int:
    """Return the bytes of a call's arguments; they grow by the same for every image."""
    one, two = (
        sum(a.nbytes for a in case.at(n).drawn() if isinstance(a, np.ndarray)) for n in (1, 2)
    )
    return one + (batch - 1) * (two - one)


def refuse_memory(todo: Sequence[Case]) -> None:
    """Raise before arguments are drawn that would not fit."""
    for case in todo:
        what = f"{case.ladder} at {case.work.label}, batch {case.batch}"
        check_memory(DRAWN * bytes_of(case, case.batch), what)


def growth(case: Case) -> float:
    """Return how much more work a case is than the same with one image."""
    if case.work.macs:
        return case.work.macs / case.at(1).macs
    return bytes_of(case, case.batch) / bytes_of(case, 1)


def refuse_time(
    todo: Sequence[tuple[Case, Sequence[str | None]]], rounds: int, limit: float
) -> None:
    """Raise before rungs are timed that would take longer than the limit."""
    total = 0.0
    for case, rungs in todo:
        work, more = case.at(1), growth(case)
        args = work.drawn()
        for rung in rungs:
            one = action(case.ladder, rung, work, args)
            one()  # compiles
            total += (rounds + 1) * max(AT_LEAST, turn(one, 0.0) * more)
    check_time(total, limit, f"{len(todo)} shapes of {todo[0][0].ladder.partition('.')[0]}")


def differs(got: Sequence[Any], want: Sequence[Any]) -> bool:
    """Tell whether two results are not the same to the rounding of float32."""
    if len(got) != len(want):
        return True
    for g, w in zip(map(np.asarray, got), map(np.asarray, want), strict=True):
        if g.shape != w.shape:
            return True
        if g.dtype.kind != "f":
            far, most = float(np.count_nonzero(g != w)), TIES * g.size
        else:
            far, most = float(np.linalg.norm(g - w)), SAME * float(np.linalg.norm(w))
        if not far <= most:
            return True
    return False


def check(case: Case, rung: str | None) -> None:
    """Raise if a rung does not compute what the `numpy` rung computes in float64."""
    work = case.at(min(case.batch, CHECKED))
    ladder = load_all()[case.ladder]
    args, exact = work.drawn(), work.drawn(np.float64)
    got = work.outputs(rung_of(ladder, rung)(*args, **work.settings), args)
    want = work.outputs(ladder["numpy"](*exact, **work.settings), exact)
    if differs(got, want):
        raise InputError(
            f"{Named(case.ladder, rung)} at {work.label} does not compute what the numpy rung "
            "does, so its speed means nothing"
        )


def action(ladder: str, rung: str | None, work: Workload, args: Sequence[Any]) -> Action:
    """Return a call of one rung, or of what the ladder itself chooses."""
    return partial(rung_of(load_all()[ladder], rung), *args, **work.settings)


# --- measuring ----------------------------------------------------------------------------------


def run(
    op: str,
    rungs: Sequence[str] = (),
    *,
    batch: int = 1,
    size: str = "stages",
    rounds: int = ROUNDS,
    limit: float = LIMIT,
) -> dict[str, Any]:
    """Time rungs of an op; if none is named, all that are fit for the size.

    Returns
    -------
    dict
        JSON's types: op, size, rounds, and cases with the seconds of every round.

    Raises
    ------
    InputError
        On unknown names, too few rounds, or what needs too much memory or time.
    """
    check_rounds(rounds)
    todo = cases(op, size, batch)
    for rung in rungs:
        check_rung(ladders_of(op), rung)
    chosen = {name: rungs_for(name, size, rungs) for name in ladders_of(op)}
    todo = [case for case in todo if chosen[case.ladder]]
    refuse_memory(todo)
    refuse_time([(case, chosen[case.ladder]) for case in todo], rounds, limit)
    found = []
    for case in todo:
        seconds, least = _seconds(case, chosen[case.ladder], rounds)
        found += [
            {
                **case.describe(),
                "rung": rung,
                "macs": case.work.macs,
                "bytes": least,
                "seconds": seconds[rung],
            }
            for rung in chosen[case.ladder]
        ]
    return {"op": op, "size": size, "rounds": rounds, "cases": found}


def _seconds(
    case: Case, rungs: Sequence[str | None], rounds: int
) -> tuple[dict[str, list[float]], int]:
    """Return the seconds of some rungs, taken in turns, and the bytes they move at least."""
    for rung in rungs:
        check(case, rung)
    args = case.work.drawn()
    calls = {str(rung): action(case.ladder, rung, case.work, args) for rung in rungs}
    found = take_turns(calls, rounds=rounds, at_least=AT_LEAST)
    outputs = case.work.outputs(action(case.ladder, None, case.work, args)(), args)
    return found, case.work.least_bytes(args, outputs)


def compare(
    first: str,
    second: str,
    *,
    batch: int = 1,
    size: str = "stages",
    rounds: int = ROUNDS,
    limit: float = LIMIT,
) -> dict[str, Any]:
    """Compare two rungs of one op, ``OP:RUNG`` each; ``OP`` alone is what the ladder chooses.

    Raises
    ------
    InputError
        As `run`, and if the ops are not the same.
    """
    check_rounds(rounds)
    a, b = named(first), named(second)
    if a.op != b.op:
        raise ConfigError(f"expected two rungs of one op, got {a.op} and {b.op}")
    registry = load_all()
    todo = [
        case
        for case in cases(a.op, size, batch)
        if all(name.rung is None or name.rung in registry[case.ladder].rungs for name in (a, b))
    ]
    if not todo:
        raise ConfigError(f"no direction of {a.op} has both rungs {a.rung} and {b.rung}")
    refuse_memory(todo)
    refuse_time([(case, (a.rung, b.rung)) for case in todo], rounds, limit)
    rows = []
    for case in todo:
        check(case, a.rung)
        check(case, b.rung)
        args = case.work.drawn()
        calls = {
            "first": action(case.ladder, a.rung, case.work, args),
            "second": action(case.ladder, b.rung, case.work, args),
        }
        ahead, behind = take_turns(calls, rounds=rounds, at_least=AT_LEAST).values()
        rows.append(row(case.describe(), ahead, behind, paired(ahead, behind)))
    return {"first": first, "second": second, "paired": True, "rounds": rounds, "rows": rows}


def table(found: Mapping[str, Any]) -> Table:
    """Return a row per case of `run`: median, quartiles, rates."""
    columns = ["op", "rung", "shape", "batch", "ms", "quartiles", "GFLOP/s", "GB/s at least"]
    rows = []
    for case in found["cases"]:
        time = summarise(case["seconds"])
        rows.append(
            [
                *(str(case[key]) for key in KEYS),
                f"{time.seconds * 1e3:.4g}",
                f"{time.low * 1e3:.4g} to {time.high * 1e3:.4g}",
                f"{2 * case['macs'] / time.seconds / 1e9:.2f}" if case["macs"] else "",
                f"{case['bytes'] / time.seconds / 1e9:.2f}",
            ]
        )
    return Table(f"{found['op']}, {found['size']}", columns, rows)


def is_file(text: str) -> bool:
    """Tell whether someone means a file rather than an op."""
    return text.endswith(".json") or Path(text).is_file()
