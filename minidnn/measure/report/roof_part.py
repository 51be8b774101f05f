"""The report's fourth section: every kernel under the machine's roof."""

from __future__ import annotations

import math
from collections.abc import Sequence

from minidnn.measure import roofline
from minidnn.measure.peaks import Level, Peaks
from minidnn.measure.report import svg
from minidnn.measure.report.markup import (
    Html,
    facts,
    figure,
    join,
    panel,
    picker,
    prose,
    radios,
    select,
    table,
    tag,
)
from minidnn.measure.report.stored import Report
from minidnn.measure.report.svg import Bar, Part, percent
from minidnn.measure.report.words import ms, number, share
from minidnn.measure.roofline import Placed

WAYS = ("all", "forward", "backward")
HEIGHT, BOTTOM = 380, 340  # of the picture, and of its plot, in pixels
APART = 14  # pixels between texts
TICKS = 0.1  # share of the width that the numbers at the left need
# Marks around 0, 0; colour and shape both tell the op.
SHAPES = (
    "M-5 0a5 5 0 1 0 10 0a5 5 0 1 0-10 0z",
    "M-4.5-4.5h9v9h-9z",
    "M0-6L6 0L0 6L-6 0z",
    "M0-6L5.5 4.5h-11z",
    "M0 6L5.5-4.5h-11z",
    "M-2-6h4v4h4v4h-4v4h-4v-4h-4v-4h4z",
)
COLOURS = ("one", "two", "three", "four", "five", "six")


def way_of(point: Placed) -> str:
    """Return which pass a kernel belongs to; products and updates belong to none."""
    action = point.ladder.partition(".")[2]
    if "backward" in action:
        return "backward"
    return "forward" if action.startswith(("forward", "inference")) else "all"


def section(report: Report) -> Html:
    """Return kernels with multiply-accumulates under the roof, the others by bytes."""
    points = roofline.by_ladder(report.points)
    few = report.settings["few"]
    panels = []
    for way in WAYS:
        own = [p for p in points if way in ("all", way_of(p))]
        panels.append(panel("way", way, _way(own, report.peaks, way), shown=way == WAYS[0]))
    warned = []
    if any(point.share > 1 for point in points):
        warned = [
            "Above 100 % of memory's rate, arrays stayed in a cache; of another limit, "
            "the peaks were measured while other programs were busy; "
            "minidnn roofline --again measures them anew."
        ]
    return join(
        [
            prose(
                "Two limits: how many multiply-adds the CPU can start, and how many bytes "
                "arrive from where the arrays lie. Operations per byte say which of the two is "
                "nearer. Point at a kernel, or pick it from the list.",
                *warned,
            ),
            picker("way", radios("pass", "way", WAYS)),
            *panels,
            table(roofline.table(points, few), roofline.NOTE),
        ]
    )


def _way(points: Sequence[Placed], peaks: Peaks, way: str) -> Html:
    if not points:
        return prose(f"No kernel {way}.")
    counted = sorted((p for p in points if p.flops), key=lambda p: -p.intensity)
    moved = sorted((p for p in points if not p.flops), key=lambda p: -p.bytes_rate)
    name = f"kernel {way}"
    ordered = [*counted, *moved]
    parts = []
    if counted:
        said = _said(counted, "with multiply-accumulates")
        lines = ", ".join(f"{x.name} {number(x.bandwidth / 1e9)}" for x in _levels(peaks))
        parts += [
            _legend(counted),
            figure(_plot(counted, peaks, said, name), said),
            tag("p", f"Slanted lines, from the left, in GB/s: {lines}.", class_="note"),
        ]
    parts.append(picker(name, select("kernel", [(p.ladder, p.ladder) for p in ordered])))
    parts += [panel(name, p.ladder, _card(p), shown=p is ordered[0]) for p in ordered]
    if moved:
        said = _said(moved, "without multiply-accumulates, by bytes alone")
        parts.append(figure(_moved(moved, peaks, said, name), said, [("limit", "memory")]))
    return join(parts)


def _said(points: Sequence[Placed], kind: str) -> str:
    good = sum(p.share >= 0.5 for p in points)
    best, worst = (choose(points, key=lambda p: p.share) for choose in (max, min))
    return (
        f"{len(points)} kernels {kind}: {good} reach half of their roof or more. The nearest to "
        f"it is {best.ladder} with {share(best.share)}, the farthest {worst.ladder} with "
        f"{share(worst.share)}."
    )


def _card(p: Placed) -> Html:
    rates = [("bytes at least", f"{number(p.bytes_rate / 1e9)} GB/s")]
    if p.flops:
        rates = [
            ("operations per byte", number(p.intensity)),
            ("arithmetic", f"{number(p.rate / 1e9, 4)} GFLOP/s"),
            *rates,
        ]
    return tag(
        "div",
        tag("p", tag("strong", p.ladder), f", rung {p.rung}, {p.label}"),
        facts(
            [
                ("of its roof", share(p.share)),
                ("time", f"{ms(p.seconds, 4)} ms"),
                *rates,
                ("arrays in", p.place),
                ("bound by", p.bound),
            ]
        ),
        class_="card",
    )


# --- the picture --------------------------------------------------------------------------


def _levels(peaks: Peaks) -> list[Level]:
    """Return where arrays can lie, the fastest place first."""
    levels = peaks.levels or (Level("memory", math.inf, 0, peaks.bandwidth, 0),)
    return sorted(levels, key=lambda one: -one.bandwidth)


def _ops(points: Sequence[Placed]) -> list[str]:
    return list(dict.fromkeys(p.ladder.partition(".")[0] for p in points))


def _mark(number: int) -> Html:
    shape, colour = SHAPES[number % len(SHAPES)], COLOURS[number % len(COLOURS)]
    return tag("path", d=shape, class_=f"mark {colour}")


def _legend(points: Sequence[Placed]) -> Html:
    items = [
        tag("li", tag("svg", _mark(i), width=14, height=14, viewBox="-7 -7 14 14"), f" {op}")
        for i, op in enumerate(_ops(points))
    ]
    return tag("ul", *items, class_="legend", aria_hidden="true")


class _Plane:
    """Where operations per byte and operations per second lie in the picture."""

    def __init__(self, points: Sequence[Placed], peaks: Peaks) -> None:
        intensities = [p.intensity for p in points]
        fastest = max(rate for rate in peaks.by_set.values())
        self.left = 0.6 * min(*intensities, peaks.flops / fastest)
        self.right = 1.8 * max(*intensities, peaks.flops / peaks.bandwidth)
        self.low = 0.5 * min(*(p.rate for p in points), *peaks.by_isa.values())
        self.roofs = roofline.roofs(points, peaks)
        self.high = 1.8 * max(peaks.flops, *self.roofs.values(), *(p.rate for p in points))
        self.x = svg.logarithmic(self.left, self.right)
        self._up = svg.logarithmic(self.low, self.high)

    def y(self, rate: float) -> float:
        return BOTTOM * (1 - self._up(rate))

    def rate(self, y: float) -> float:
        down: float = (self.low / self.high) ** (y / BOTTOM)
        return self.high * down


def _plot(points: Sequence[Placed], peaks: Peaks, said: str, name: str) -> Html:
    plane = _Plane(points, peaks)
    ops = _ops(points)
    marks = [
        _at(
            plane,
            p,
            name,
            tag("title", f"{p.ladder}: {share(p.share)} of its roof"),
            tag("circle", r=13, class_="touch"),
            _mark(ops.index(p.ladder.partition(".")[0])),
        )
        for p in points
    ]
    names = []  # after all marks, so that none lies over them
    for p in points:
        anchor = _anchor(plane.x(p.intensity))
        text = tag("text", p.ladder, y=_name_y(plane, p, peaks), text_anchor=anchor, class_="name")
        names.append(_at(plane, p, name, text))
    return svg.drawing(HEIGHT, said, _grid(plane), _roofs(plane, peaks), *marks, *names)


def _at(plane: _Plane, p: Placed, name: str, *content: Html) -> Html:
    """Return what is drawn around a point, and marked when its kernel is picked."""
    return tag(
        "svg",
        *content,
        x=percent(plane.x(p.intensity)),
        y=f"{plane.y(p.rate):.1f}",
        overflow="visible",
        data_marked_by=name,
        data_key=p.ladder,
    )


def _name_y(plane: _Plane, p: Placed, peaks: Peaks) -> int:
    """Return where a point's name stands: below it where the roof's own names are above."""
    return 20 if plane.y(p.rate) - plane.y(peaks.flops) < 2 * APART else -10


def _anchor(share: float) -> str:
    return "start" if share < 0.25 else "end" if share > 0.75 else "middle"


def _grid(plane: _Plane) -> Html:
    parts = []
    for power in range(math.ceil(math.log10(plane.left)), math.floor(math.log10(plane.right)) + 1):
        x = plane.x(10.0**power)
        parts += [
            svg.line(x, 0, x, BOTTOM, "grid"),
            svg.text(x, BOTTOM + 14, f"{10.0**power:g}", "middle", "tick"),
        ]
    for power in range(math.ceil(math.log10(plane.low)), math.floor(math.log10(plane.high)) + 1):
        y = plane.y(10.0**power)
        parts += [
            svg.line(0, y, 1, y, "grid"),
            svg.text(0, y - 3, f"{10.0 ** (power - 9):g}", "start", "tick"),
        ]
    names = [
        svg.text(0.5, HEIGHT - 8, "operations per byte, logarithmic", "middle", "tick"),
        svg.text(0, 11, "GFLOP/s", "start", "tick"),
    ]
    return join([*parts, *names])


def _roofs(plane: _Plane, peaks: Peaks) -> Html:
    parts = []
    top = plane.y(peaks.flops)
    for place, level in enumerate(_levels(peaks)):
        begin = max(plane.left, plane.low / level.bandwidth)
        ridge = peaks.flops / level.bandwidth
        if begin >= ridge:
            continue
        y = plane.y(begin * level.bandwidth)
        parts.append(svg.line(plane.x(begin), y, plane.x(ridge), top, "roof"))
        # Right of its line; one below the other, since lines may be close.
        at = top + 20 + APART * place
        x = plane.x(plane.rate(at) / level.bandwidth)
        if x > TICKS:
            parts.append(svg.text(x + 0.01, at + 4, level.name, "start", "roof-name"))
    for rate in plane.roofs.values():
        y = plane.y(rate)
        parts.append(svg.line(0, y, 1, y, "roof" if rate == peaks.flops else "lower-roof"))
    return join([*parts, _isa_names(plane)])


def _isa_names(plane: _Plane) -> Html:
    """Write instruction sets over their lines; where lines are close, in one text."""
    groups: list[tuple[float, list[str]]] = []
    for isa, rate in sorted(plane.roofs.items(), key=lambda one: -one[1]):
        name = f"{isa} {rate / 1e9:.4g}"
        if groups and plane.y(rate) - groups[-1][0] < APART:
            groups[-1][1].append(name)
        else:
            groups.append((plane.y(rate), [name]))
    return join(
        [
            svg.text(1, y - 4, f"{', '.join(names)} GFLOP/s", "end", "roof-name")
            for y, names in groups
        ]
    )


def _moved(points: Sequence[Placed], peaks: Peaks, said: str, name: str) -> Html:
    rows = [
        Bar(
            p.ladder,
            f"{number(p.bytes_rate / 1e9)} GB/s, {share(p.share)}",
            [Part(0, p.bytes_rate, "one")],
            key=p.ladder,
        )
        for p in points
    ]
    top = max(peaks.bandwidth, *(p.bytes_rate for p in points))
    axis = svg.linear_axis(
        top,
        "GB/s of least bytes; then the share of the roof",
        lambda v: number(v / 1e9),
        at=peaks.bandwidth,
    )
    return svg.bars(rows, axis, said, marked_by=name)
