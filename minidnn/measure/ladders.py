"""One op's ladders rung by rung: time, rates, shares of this machine's peaks, error, idea.

All rungs of a ladder take turns on the same arguments. Before that each climbs from a
tiny version of the shape to the whole one, so that a rung that would take too long is known
without being run: its time is then an estimate, and marked as one.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from minidnn.errors import ConfigError
from minidnn.kernels.ladder import load_all, unknown
from minidnn.measure import timing
from minidnn.measure.int8_work import PEAK_NOTE, peak_of
from minidnn.measure.limits import check_memory, check_time
from minidnn.measure.peaks import Peaks
from minidnn.measure.ratios import speed_ratio
from minidnn.measure.rungs import ladders_of
from minidnn.measure.shapes import CLASSROOM, Map, Pointwise, Shapes, shapes_of
from minidnn.measure.tables import Table
from minidnn.measure.workloads import Workload, workloads
from minidnn.plots import new_figure

ROUNDS, FEWEST = 9, 3  # turns of each rung; as few as FEWEST where they are slow
LIMIT = 30.0  # seconds that one rung may take in all
TRUSTED = 0.005  # seconds of a call from which on its work, not its start, sets the pace
CHECKED = 8  # images at most on which errors are looked for
COPIES = 4  # arguments in float64, in float32, a rung's own copies and results
BATCH = 8


class Dimensions(NamedTuple):
    """Height and width of a map, channels in and out."""

    size: int
    c_in: int
    c_out: int

    def shapes(self) -> Shapes:
        """Return shapes at which every kernel that works on maps meets this one."""
        size, c_in, c_out = self

        def fill(value: Any) -> Any:
            if isinstance(value, Map):
                return Map(size, c_in)
            if isinstance(value, Pointwise):
                return Pointwise(size, c_in, c_out)
            return (fill(value[0]),) if isinstance(value, tuple) else value

        filled = Shapes(*map(fill, CLASSROOM))
        return filled._replace(stem_channels=c_out, parameters=c_in * c_out)


def dimensions(label: str) -> Dimensions | None:
    """Read '28x28x64' or '28x28x64->128'; None for other labels, such as 'stem'."""
    found = re.fullmatch(r"(\d+)x(\d+)x(\d+)(?:->(\d+))?", label)
    if found is None:
        return None
    height, width, c_in, c_out = map(int, found.groups(default=found[3]))
    if height != width:
        raise ConfigError(f"shape {label!r}: expected a square map, such as {height}x{height}")
    if min(height, c_in, c_out) < 1:
        raise ConfigError(f"shape {label!r}: expected sizes of at least 1")
    return Dimensions(height, c_in, c_out)


def smaller(value: Any, halvings: int) -> Any:
    """Return shapes, or a part of them, with all sizes halved so often; no map below 6x6."""
    if isinstance(value, Map | Pointwise):
        size = min(value.size, max(6, value.size >> halvings))
        channels = [max(1, c >> halvings) for c in value[1 : 2 if isinstance(value, Map) else 3]]
        return type(value)(size, *channels)
    if isinstance(value, Shapes):
        return Shapes(*(smaller(part, halvings) for part in value))
    if isinstance(value, tuple):
        return tuple(smaller(part, halvings) for part in value)
    return max(1, value >> halvings)


def elements(value: Any) -> int:
    """Return about how many numbers the largest call reads and writes for one image."""
    if isinstance(value, Map):
        return 3 * value.size**2 * value.channels
    if isinstance(value, Pointwise):
        return value.size**2 * (value.c_in + value.c_out) + 9 * value.c_in * value.c_out
    if isinstance(value, tuple):
        return max(map(elements, value))
    return int(value)


@dataclass(frozen=True)
class Case:
    """A ladder at one shape: the workload at a place in the list of those at some shapes."""

    ladder: str
    label: str
    shapes: Shapes
    place: int = 0

    def work(self, batch: int, halvings: int = 0) -> Workload:
        """Return the call, or a smaller one of its kind."""
        return workloads(smaller(self.shapes, halvings), batch)[self.ladder][self.place]

    def cost(self, batch: int, halvings: int = 0) -> float:
        """Return what its time should be proportional to."""
        work = self.work(batch, halvings)
        return work.macs or batch * elements(smaller(self.shapes, halvings))

    def bytes_needed(self, batch: int) -> int:
        """Return about how much memory measuring it takes."""
        return 4 * COPIES * batch * elements(self.shapes)


# Op -> the op that holds it and its neighbours: the last step of its ladder.
FUSED = {"depthwise": "separable"}
CONTINUED = (
    "separable: depthwise fused with its neighbours, batch norm and PReLU before it, the pointwise "
    "product and the next\nbatch norm's statistics after it."
)


# --- which ladders, shapes and rungs ---------------------------------------------------


def climbed(op: str) -> list[str]:
    """Return the ladders of an op, and those where it is fused with its neighbours.

    Raises
    ------
    ConfigError
        If there is no such op; the nearest name is given.
    """
    found = ladders_of(op)
    kind, _, way = op.partition(".")
    if kind not in FUSED:
        return found
    return [*found, *(n for n in ladders_of(FUSED[kind]) if not way or n.endswith(f".{way}"))]


def cases(ladder: str, *, shape: str | None = None, size: str | None = None) -> list[Case]:
    """Return a ladder at one shape, at all shapes of a size, or at a middle one of QuickNet.

    Raises
    ------
    ConfigError
        If the shape is none, the size unknown, or nothing meets the ladder there.
    """
    shapes = shapes_of(size or "full")
    labels = [work.label for work in workloads(shapes, 1)[ladder]]
    if shape is not None:
        if shape not in labels and dimensions(shape) is None:
            raise ConfigError(unknown(f"shape of {ladder}", shape, labels))
        return [_case(ladder, shape, shapes, labels)]
    if size is None:
        labels = labels[len(labels) // 3 :][:1]
    return [_case(ladder, label, shapes, labels) for label in labels]


def _case(ladder: str, label: str, shapes: Shapes, labels: Sequence[str]) -> Case:
    given = dimensions(label)
    if given is None:
        return Case(ladder, label, shapes, list(labels).index(label))
    there = [dimensions(work.label) for work in workloads(given.shapes(), 1)[ladder]]
    place = next((i for i, found in enumerate(there) if found), 0)  # not the stem, if it can be
    return Case(ladder, label, given.shapes(), place)


def rungs_of(ladder: str, wanted: Sequence[str] = ()) -> list[str]:
    """Return the names of a ladder's rungs, all or those wanted, in order.

    Raises
    ------
    ConfigError
        If the ladder lacks one; the nearest name is given.
    """
    known = list(load_all()[ladder].rungs)
    for name in wanted:
        if name not in known:
            raise ConfigError(unknown(f"rung of {ladder}", name, known))
    return [name for name in known if not wanted or name in wanted]


# --- measuring -------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """One rung.

    Attributes
    ----------
    rung, idea : str
    chosen : bool
        Whether a call of the ladder with these arguments runs this rung.
    seconds, low, high : float
        Of one call: median and quartiles.
    turns : int
        0 where `seconds` is an estimate: the rung was too slow to be run.
    gflops, gbs : float
        10^9 operations (two per MAC) and 10^9 least bytes per second.
    flops_share, bandwidth_share : float
        Of this machine's peaks; see `int8_work.peak_of`.
    speedup : float or None
        Over the rung before, from pairs of turns where both were run.
    error : float or None
        Largest difference from the numpy rung in float64, over that one's largest value.
    """

    rung: str
    idea: str
    chosen: bool
    seconds: float
    low: float
    high: float
    turns: int
    gflops: float
    flops_share: float
    gbs: float
    bandwidth_share: float
    speedup: float | None
    error: float | None


@dataclass(frozen=True)
class Measured:
    """A ladder at one shape, measured."""

    ladder: str
    label: str
    batch: int
    macs: int
    least_bytes: int
    rows: list[Row]

    def as_dict(self) -> dict[str, Any]:
        """Return plain numbers, strings, lists and dicts, for JSON."""
        return asdict(self)


def measure(
    case: Case,
    peaks: Peaks,
    *,
    batch: int = BATCH,
    rungs: Sequence[str] = (),
    limit: float = LIMIT,
) -> Measured:
    """Measure a ladder's rungs against each other.

    Parameters
    ----------
    case : Case
    peaks : Peaks
        This machine's.
    batch : int
        Images.
    rungs : sequence of str
        Which ones; all if empty.
    limit : float
        Seconds that one rung may take. Slower ones are not run, and their times estimated.

    Raises
    ------
    ConfigError
        If a rung is unknown.
    InputError
        If there is not enough memory, or every rung, or one asked for by name, is too slow.
    """
    names, what = rungs_of(case.ladder, rungs), f"ladder {case.ladder} at {batch} x {case.label}"
    check_memory(case.bytes_needed(batch), what)
    guessed = {name: estimate(case, name, batch, limit) for name in names}
    for name in rungs or [min(names, key=guessed.__getitem__)]:
        check_time(guessed[name] * (FEWEST + 1), limit, f"{what}, rung {name}")
    run = [name for name in names if guessed[name] * (FEWEST + 1) <= limit]
    total = sum(guessed[name] for name in run)
    rounds = max(FEWEST, min(ROUNDS, int(limit / max(total, 1e-9)) - 1))
    work = case.work(batch)
    ladder, args = load_all()[case.ladder], work.drawn()
    turns = timing.take_turns({n: _action(case, n, work, args) for n in run}, rounds=rounds)
    wrong = errors(case, run, min(batch, CHECKED))
    chosen = ladder.choose(*args, **work.settings)
    outputs = work.outputs(ladder[run[-1]](*args, **work.settings), args)
    facts = _Facts(
        work.macs,
        work.least_bytes(args, outputs),
        peaks._replace(flops=peak_of(case.ladder, peaks.flops)),
    )
    rows: list[Row] = []
    for name in names:
        guess = guessed[name]
        time = timing.Timing(guess, guess, guess, turns=0)
        if name in turns:
            time = timing.summarise(turns[name])
        speedup = _speedup(rows[-1], turns, name, time) if rows else None
        idea = _idea(ladder, name)
        rows.append(facts.row(name, idea, name == chosen, time, speedup, wrong.get(name)))
    return Measured(case.ladder, case.label, batch, facts.macs, facts.least_bytes, rows)


def _speedup(before: Row, turns: dict[str, list[float]], name: str, time: timing.Timing) -> float:
    """Return how many times faster a rung is than the row before it."""
    if before.rung in turns and name in turns:
        return speed_ratio(turns[name], turns[before.rung]).median
    return before.seconds / time.seconds


class _Facts(NamedTuple):
    """What turns seconds into rates."""

    macs: int
    least_bytes: int
    peaks: Peaks

    def row(
        self,
        rung: str,
        idea: str,
        chosen: bool,
        time: timing.Timing,
        speedup: float | None,
        error: float | None,
    ) -> Row:
        flops, rate = 2 * self.macs / time.seconds, self.least_bytes / time.seconds
        return Row(
            rung,
            idea,
            chosen,
            *time,
            gflops=flops / 1e9,
            flops_share=flops / self.peaks.flops,
            gbs=rate / 1e9,
            bandwidth_share=rate / self.peaks.bandwidth,
            speedup=speedup,
            error=error,
        )


def _idea(ladder: Any, rung: str) -> str:
    return (inspect.getdoc(ladder.rungs[rung]) or "").partition("\n")[0]


def _action(
    case: Case, rung: str, work: Workload, shared: list[Any] | None = None
) -> Callable[[], object]:
    """Return a call of a rung; its arguments are its own where the ladder writes to them."""
    args = work.drawn() if shared is None or work.in_place else shared
    function, settings = load_all()[case.ladder][rung], work.settings
    return lambda: function(*args, **settings)


def estimate(case: Case, rung: str, batch: int, limit: float) -> float:
    """Return about how many seconds a rung takes, from calls with less work.

    Climbs from a tiny shape, halvings of all sizes, to one image of the whole shape, and stops
    where the next call would take a good part of `limit` (seconds).
    """
    top = max(0, math.ceil(math.log2(max(1, elements(case.shapes) / 1000)) / 2))
    whole, seconds, cost = case.cost(batch), 0.0, 1.0
    action = _action(case, rung, case.work(1, top))
    for halvings in range(top, -1, -1):
        next_cost = case.cost(1, halvings)
        if seconds > TRUSTED and seconds * next_cost / cost > limit / 8:
            # Other programs' work may have been in it: look again before giving up.
            seconds = min(seconds, timing.timed(action, rounds=1, at_least=0).seconds)
            if seconds * next_cost / cost > limit / 8:
                break
        action = _action(case, rung, case.work(1, halvings))
        seconds, cost = timing.timed(action, rounds=1, at_least=0).seconds, next_cost
    if seconds * whole / cost * (FEWEST + 1) > limit:
        seconds = min(seconds, timing.timed(action, rounds=1, at_least=0).seconds)
    return seconds * whole / cost


def errors(case: Case, rungs: Sequence[str], batch: int) -> dict[str, float]:
    """Return each rung's largest difference from the numpy rung in float64, over its largest."""
    ladder, work = load_all()[case.ladder], case.work(batch)
    exact = work.drawn(np.float64)
    want = work.outputs(ladder["numpy"](*exact, **work.settings), exact)
    found = {}
    for rung in rungs:
        args = work.drawn()
        got = work.outputs(ladder[rung](*args, **work.settings), args)
        found[rung] = max(error_of(g, w) for g, w in zip(got, want, strict=True))
    return found


def error_of(got: Any, want: Any) -> float:
    """Return the largest difference over the largest value; the difference if that is 0."""
    exact = np.asarray(want, np.float64)
    largest = float(np.abs(exact).max(initial=0.0))
    wrong = float(np.abs(np.asarray(got, np.float64) - exact).max(initial=0.0))
    return wrong / largest if largest else wrong


# --- showing ---------------------------------------------------------------------------

COLUMNS = ("rung", "ms", "GFLOP/s", "of peak", "GB/s", "of memory", "faster", "error", "idea")
NOTE = (
    "GFLOP/s count two operations per MAC, GB/s the least bytes: inputs read once, outputs written "
    "once. Shares are of all threads' peaks;\nmore than 100 % of memory: the arrays stayed in a "
    "cache. faster: than the rung above. error: against numpy in float64, over the largest value.\n"
    "* is what a call of the op runs here; ~ was too slow to run, and is estimated. " + PEAK_NOTE
)


def table(found: Measured) -> Table:
    """Return a ladder's rungs as a table."""
    work = f"{found.macs:,} MACs, " if found.macs else ""
    title = (
        f"{found.ladder} at {found.batch} x {found.label}: "
        f"{work}{found.least_bytes / 1e6:,.4g} MB at least"
    )
    return Table(title, COLUMNS, [_cells(row) for row in found.rows], prose=("idea",))


def _cells(row: Row) -> list[str]:
    about = "" if row.turns else "~"
    return [
        f"{row.rung} *" if row.chosen else row.rung,
        f"{about}{1e3 * row.seconds:,.4g}",
        f"{row.gflops:.3g}" if row.gflops else "-",
        f"{row.flops_share:.1%}" if row.gflops else "-",
        f"{row.gbs:.3g}",
        f"{row.bandwidth_share:.1%}",
        "-" if row.speedup is None else f"{row.speedup:.3g}x",
        "-" if row.error is None else f"{row.error:.1e}",
        row.idea,
    ]


def draw(found: Sequence[Measured], peaks: Peaks, path: Path, *, title: str = "") -> None:
    """Draw the rungs' rates over the sizes into a PNG file, one picture per ladder.

    Raises
    ------
    MissingExtraError
        If matplotlib is not installed.
    """
    names = list(dict.fromkeys(one.ladder for one in found))
    columns = min(2, len(names))
    rows = -(-len(names) // columns)
    figure = new_figure(1 + 6.5 * columns, 1 + 4 * rows)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis, name in zip(grid, names, strict=False):
        _draw_ladder(axis, [one for one in found if one.ladder == name], peaks)
    for axis in grid[len(names) :]:
        axis.axis("off")
    figure.suptitle(title, size="medium")
    figure.savefig(path, dpi=120)


def _draw_ladder(axis: Any, found: Sequence[Measured], peaks: Peaks) -> None:
    counted = bool(found[0].macs)
    flops = peak_of(found[0].ladder, peaks.flops)
    rate, peak = ("gflops", flops) if counted else ("gbs", peaks.bandwidth)
    for i, row in enumerate(found[0].rows):
        heights = [getattr(one.rows[i], rate) for one in found]
        axis.plot(range(len(found)), heights, marker="o", label=row.rung)
        for place, one in enumerate(found):
            if not one.rows[i].turns:  # an estimate: a hollow mark
                axis.plot(place, heights[place], marker="o", color="white", markersize=3, zorder=3)
    limit = "peak" if counted else "memory"
    axis.axhline(peak / 1e9, color="grey", linestyle="--", label=limit)
    axis.set_xticks(range(len(found)), [one.label for one in found], rotation=20)
    axis.set_yscale("log")
    axis.set_ylabel("GFLOP/s" if counted else "GB/s (least bytes)")
    axis.set_title(f"{found[0].ladder}, batch {found[0].batch}")
    axis.grid(alpha=0.3)
    axis.legend(fontsize="small")
