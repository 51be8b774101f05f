"""The report's fifth section: where the time of a training step goes."""

from __future__ import annotations

from collections.abc import Sequence

from minidnn.measure.profiled import BACKWARD, FORWARD, Layer, Pass, Result
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
from minidnn.measure.report.stored import Report, Span
from minidnn.measure.report.svg import Bar, Part
from minidnn.measure.report.words import ms, number, share

BOTH = "both"
WAYS = (BOTH, FORWARD, BACKWARD)
COLOURS = {FORWARD: "one", BACKWARD: "two"}
LANE, GAP = 30, 20  # pixels of a lane of the timeline, and of the text above it
LETTERS = 28  # of a layer's name beside its numbers


def section(report: Report) -> Html:
    """Return the layers' times as bars, and the calls of one step along its time."""
    found = report.step
    panels = [panel("step", way, _way(report, way), shown=way == WAYS[0]) for way in WAYS]
    heading = f"{report.model}, batch {report.batch}: medians of {found.steps} training steps"
    return join(
        [
            prose(
                f"A training step of {report.model} on {report.batch} images: forward, loss, "
                "backward, SGD. Layers that training joins run as one op and are one row here."
            ),
            picker("step", radios("pass", "step-pass", WAYS)),
            *panels,
            table(found.table(heading), found.totals()),
        ]
    )


def short(label: str) -> str:
    """Return a layer's name, cut in its middle where it is too long for a chart."""
    name = label.removeprefix("features.")
    if len(name) <= LETTERS:
        return name
    return f"{name[: LETTERS // 2 - 1]}…{name[-LETTERS // 2 :]}"


def _way(report: Report, way: str) -> Html:
    name = f"row {way}"
    found = report.step
    layers = [one for one in found.layers if _seconds(one, way)]
    slowest = max(layers, key=lambda one: _seconds(one, way))
    options = [(str(i), one.label) for i, one in enumerate(found.layers) if one in layers]
    numbers = {one.label: str(i) for i, one in enumerate(found.layers)}
    cards = [
        panel(name, numbers[one.label], _card(one, found), shown=one is slowest) for one in layers
    ]
    return join(
        [
            _timeline(report, way, numbers, name),
            picker(name, select("layer", options, numbers[slowest.label])),
            *cards,
            _layers(found, layers, slowest, way, numbers, name),
        ]
    )


def _passes(layer: Layer, way: str) -> list[tuple[str, Pass]]:
    both = [(FORWARD, layer.forward), (BACKWARD, layer.backward)]
    return [(name, one) for name, one in both if way in (BOTH, name)]


def _seconds(layer: Layer, way: str) -> float:
    return sum(one.seconds for _, one in _passes(layer, way))


def _layers(
    found: Result,
    layers: Sequence[Layer],
    slowest: Layer,
    way: str,
    numbers: dict[str, str],
    name: str,
) -> Html:
    rows = []
    for layer in layers:
        parts, end = [], 0.0
        for own, one in _passes(layer, way):
            parts.append(Part(end, end + one.seconds, COLOURS[own]))
            end += one.seconds
        value = f"{ms(end)} ms, {share(end / found.step_seconds)}"
        rows.append(Bar(short(layer.label), value, parts, key=numbers[layer.label]))
    most = _seconds(slowest, way)
    axis = svg.linear_axis(most, "ms of a step", ms)
    what = "" if way == BOTH else f" {way}"
    said = (
        f"{len(layers)} rows{what} take {ms(sum(_seconds(x, way) for x in layers), 4)} ms of the "
        f"step's {ms(found.step_seconds, 4)}. The largest is {slowest.label} with "
        f"{ms(most)} ms, {share(most / found.step_seconds)} of the step."
    )
    legend = [(COLOURS[own], own) for own in COLOURS if way in (BOTH, own)]
    return figure(svg.bars(rows, axis, said, marked_by=name), said, legend)


def _card(layer: Layer, found: Result) -> Html:
    pairs = [("share of the step", share(layer.seconds / found.step_seconds))]
    for name, one in _passes(layer, BOTH):
        if one.seconds:
            rate = f", {number(one.gflops)} GFLOP/s" if one.macs else ""
            pairs.append((name, f"{ms(one.seconds)} ms{rate}, {number(one.gbps)} GB/s"))
    return tag(
        "div", tag("p", tag("strong", layer.label), f" ({layer.kind})"), facts(pairs), class_="card"
    )


# --- one step along its time ------------------------------------------------------------------


def _timeline(report: Report, way: str, numbers: dict[str, str], name: str) -> Html:
    spans = report.timeline
    whole = next(one for one in spans if one.category == "step").seconds
    axis = svg.linear_axis(whole, "ms since the step began", ms)
    sections = [one for one in spans if one.category == "section"]
    calls = [
        one for one in spans
        if one.category in COLOURS and way in (BOTH, one.category) and one.name in numbers
    ]  # fmt: skip
    bottom = 2 * (LANE + GAP)
    grid = [svg.line(axis.scale(v), 0, axis.scale(v), bottom, "grid") for v, _ in axis.marks]
    lanes = [
        *grid,
        svg.text(0, GAP - 6, "parts of the step"),
        *(_span(one, axis, GAP, "grey") for one in sections),
        *(_named(one, axis) for one in sections),
        svg.text(0, LANE + 2 * GAP - 6, "calls of layers"),
        *(
            tag(
                "g",
                _span(one, axis, LANE + 2 * GAP, COLOURS[one.category]),
                data_marked_by=name,
                data_key=numbers[one.name],
            )
            for one in calls
        ),
    ]
    parts = ", ".join(f"{one.name} {ms(one.seconds)} ms" for one in sections)
    said = (
        f"One step of {ms(whole, 4)} ms, the middle one of {report.step.steps}: {parts}. Below, "
        f"{len(calls)} calls of layers, one after the other."
    )
    legend = [(COLOURS[own], own) for own in COLOURS if way in (BOTH, own)]
    drawn = svg.drawing(bottom + svg.AXIS, said, *lanes, svg.marks(axis, bottom))
    return figure(drawn, said, legend)


def _span(one: Span, axis: svg.Axis, top: float, class_: str) -> Html:
    low, high = axis.scale(one.start), axis.scale(one.start + one.seconds)
    title = f"{one.name}: {ms(one.seconds)} ms"
    return svg.rect(low, top, high - low, LANE - 6, f"{class_} span", title, least=0.001)


def _named(one: Span, axis: svg.Axis) -> Html:
    """Return the name of a part that is wide enough to hold it."""
    if axis.scale(one.seconds) < 0.2:
        return Html("")
    return svg.text(axis.scale(one.start) + 0.01, GAP + 16, one.name, "start", "on-grey")
