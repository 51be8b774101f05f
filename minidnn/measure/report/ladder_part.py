"""The report's third section: ladders, rung by rung."""

from __future__ import annotations

from minidnn.measure import ladders
from minidnn.measure.ladders import Measured, Row
from minidnn.measure.peaks import Peaks
from minidnn.measure.report import svg
from minidnn.measure.report.markup import (
    Html,
    facts,
    figure,
    join,
    panel,
    picker,
    prose,
    select,
    table,
    tag,
)
from minidnn.measure.report.stored import Report
from minidnn.measure.report.svg import Bar, Part
from minidnn.measure.report.words import ms, number, share
from minidnn.measure.roofline import place


def key(one: Measured) -> str:
    """Return a ladder's name among the options."""
    return f"{one.ladder} at {one.label}"


def section(report: Report) -> Html:
    """Return every ladder's rungs."""
    options = [(key(one), key(one)) for one in report.ladders]
    panels = [
        panel("ladder", key(one), _ladder(one, report.peaks), shown=not number)
        for number, one in enumerate(report.ladders)
    ]
    return join(
        [
            prose(
                "A ladder holds the same computation many times, from loops that say what is "
                "computed to the fastest; each rung adds one idea."
            ),
            picker("ladder", select("ladder", options, options[0][0])),
            *panels,
            tag(
                "details",
                tag("summary", "Every ladder as a table"),
                *(table(ladders.table(one)) for one in report.ladders),
                tag("p", ladders.NOTE, class_="note"),
            ),
        ]
    )


def _ladder(one: Measured, peaks: Peaks) -> Html:
    name = f"rung of {key(one)}"
    chosen = next((row for row in one.rows if row.chosen), one.rows[-1])
    ideal = place(
        one.ladder, chosen.rung, one.label, (one.macs, one.least_bytes), chosen.seconds, peaks
    )
    axis = svg.log_axis(
        [row.seconds for row in one.rows] + [ideal.ideal_seconds],
        f"ms for a batch of {one.batch}, logarithmic",
        lambda v: f"{1e3 * v:g}",
    )._replace(line=ideal.ideal_seconds)
    rows = [_bar(one, row, axis) for row in one.rows]
    said = sentence(one, chosen, ideal.share)
    legend = [("one", "measured"), ("chosen", "what runs here")]
    if any(not row.turns for row in one.rows):
        legend.append(("estimate", "too slow to run: estimated"))
    legend.append(("limit", "what the peaks allow"))
    options = [(row.rung, row.rung) for row in one.rows]
    cards = [panel(name, row.rung, _card(one, row), shown=row is chosen) for row in one.rows]
    return join(
        [
            figure(svg.bars(rows, axis, said, marked_by=name), said, legend),
            picker(name, select("rung", options, chosen.rung)),
            *cards,
        ]
    )


def sentence(one: Measured, chosen: Row, ideal: float) -> str:
    """Return what a ladder shows."""
    first = one.rows[0]
    about = "" if first.turns else "about "
    steps = [row for row in one.rows if row.speedup is not None]
    best = max(steps, key=lambda row: row.speedup or 0, default=None)
    largest = (
        f" The largest step is {best.rung}, {number(best.speedup or 0)} times as fast as the "
        "rung before."
        if best
        else ""
    )
    return (
        f"{one.ladder} at {one.batch} x {one.label}: {first.rung} takes {about}"
        f"{ms(first.seconds, 4)} ms, "
        f"{chosen.rung}, which runs here, {_ms(chosen)}: "
        f"{about}{number(first.seconds / chosen.seconds)} times as fast, and {share(ideal)} of "
        f"what this machine's peaks allow.{largest}"
    )


def _ms(row: Row) -> str:
    return f"{'' if row.turns else '~'}{ms(row.seconds, 4)} ms"


def _bar(one: Measured, row: Row, axis: svg.Axis) -> Bar:
    class_ = "estimate" if not row.turns else "chosen" if row.chosen else "one"
    texts = [_ms(row)]
    if row.speedup is not None:
        texts.append(f"{number(row.speedup)}x")
    texts.append(
        f"{share(row.flops_share)} of peak"
        if one.macs
        else f"{share(row.bandwidth_share)} of memory"
    )
    low = min(value for value, _ in axis.marks)
    return Bar(row.rung, ", ".join(texts), [Part(low, row.seconds, class_, row.idea)], key=row.rung)


def _card(one: Measured, row: Row) -> Html:
    took = f"{_ms(row)} (estimated)" if not row.turns else (
        f"{_ms(row)} (quartiles {ms(row.low, 4)} to {ms(row.high, 4)})"
    )  # fmt: skip
    rates = [
        ("bytes at least", f"{number(row.gbs)} GB/s, {share(row.bandwidth_share)} of memory's rate")
    ]
    if one.macs:
        rates.insert(
            0, ("arithmetic", f"{number(row.gflops)} GFLOP/s, {share(row.flops_share)} of peak")
        )
    return tag(
        "div",
        tag("p", tag("strong", row.rung), f": {row.idea}"),
        facts(
            [
                ("time", took),
                *rates,
                ("over the rung before", "-" if row.speedup is None else f"{number(row.speedup)}x"),
                ("largest error", "not run" if row.error is None else f"{row.error:.1e}"),
            ]
        ),
        class_="card",
    )
