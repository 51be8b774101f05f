"""Charts as SVG that fits any width: across in percent, down and text in pixels.

So bars grow with the page, and letters stay readable on a phone. Nothing here knows what is shown.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from minidnn.measure.report.markup import Html, join, tag

Scale = Callable[[float], float]  # value -> share of the width

ROW, BAR, LETTERS, AXIS = 36, 14, 13, 30  # pixels


def linear(top: float) -> Scale:
    """Return a scale from 0 to the largest value; there is room for a text beyond."""
    return lambda value: min(max(value / top, 0.0), 1.0)


def logarithmic(low: float, high: float) -> Scale:
    """Return a scale on which equal factors are equally far apart."""
    width = math.log(high / low)
    return lambda value: min(max(math.log(value / low) / width, 0.0), 1.0)


def decades(values: Sequence[float]) -> tuple[float, float]:
    """Return powers of ten around values, two at least."""
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return 10.0**low, 10.0 ** max(high, low + 1)


def round_step(value: float) -> float:
    """Return a round number not below: 1, 2 or 5 times a power of ten."""
    unit: float = 10.0 ** math.floor(math.log10(value))
    return next(unit * step for step in (1, 2, 5, 10) if unit * step >= value)


def ticks(low: float, high: float) -> list[float]:
    """Return where a logarithmic axis is marked: powers of ten, no more than fit."""
    first, last = round(math.log10(low)), round(math.log10(high))
    step = -(-(last - first) // 4) or 1
    return [10.0**power for power in range(first, last + 1, step)]


def percent(share: float) -> str:
    """Return a share as SVG's lengths want it."""
    return f"{100 * share:.2f}%"


def drawing(height: float, label: str, *content: object) -> Html:
    """Return a picture with its text alternative."""
    return tag("svg", *content, role="img", aria_label=label, width="100%", height=f"{height:.0f}")


def text(share: float, y: float, content: str, anchor: str = "start", class_: str = "") -> Html:
    """Return a text whose start, middle or end is at a share of the width."""
    return tag(
        "text", content, x=percent(share), y=f"{y:.1f}", text_anchor=anchor, class_=class_ or None
    )


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Html:
    """Return a straight line; x in shares, y in pixels."""
    return tag(
        "line",
        x1=percent(x1),
        y1=f"{y1:.1f}",
        x2=percent(x2),
        y2=f"{y2:.1f}",
        class_=class_,
    )


def rect(
    x: float,
    y: float,
    width: float,
    height: float,
    class_: str,
    title: str = "",
    least: float = 0.004,
) -> Html:
    """Return a box; x and width in shares, never thinner than what the eye can see."""
    inner = [tag("title", title)] if title else []
    return tag(
        "rect",
        *inner,
        x=percent(x),
        y=f"{y:.1f}",
        width=percent(max(width, least)),
        height=f"{height:.1f}",
        class_=class_,
    )


class Part(NamedTuple):
    """A piece of a bar, from one value to another."""

    low: float
    high: float
    class_: str
    title: str = ""


class Bar(NamedTuple):
    """One row of a chart.

    Attributes
    ----------
    name, value : str
        What stands above the bar at its left and right.
    parts : sequence of Part
    whisker : (float, float), optional
        An interval.
    key : str, optional
        What a picker calls it.
    """

    name: str
    value: str
    parts: Sequence[Part]
    whisker: tuple[float, float] | None = None
    key: str | None = None


class Axis(NamedTuple):
    """What is along the width: its scale, (value, text) of its marks, and its name."""

    scale: Scale
    marks: Sequence[tuple[float, str]]
    name: str
    line: float | None = None  # a value with a line of its own


def bars(rows: Sequence[Bar], axis: Axis, label: str, marked_by: str = "") -> Html:
    """Return a chart with a row per bar, its name and value above it."""
    bottom = ROW * len(rows) + 4
    grid = [line(axis.scale(v), 0, axis.scale(v), bottom, "grid") for v, _ in axis.marks]
    drawn = [_row(row, number, axis, marked_by) for number, row in enumerate(rows)]
    extra = [] if axis.line is None else [
        line(axis.scale(axis.line), 0, axis.scale(axis.line), bottom, "limit")
    ]  # fmt: skip
    return drawing(bottom + AXIS, label, join(grid), join(drawn), join(extra), marks(axis, bottom))


def _row(row: Bar, number: int, axis: Axis, marked_by: str) -> Html:
    top = ROW * number + 2
    pieces = [text(0, top + LETTERS, row.name), text(1, top + LETTERS, row.value, "end", "value")]
    bar_top = top + LETTERS + 4
    for part in row.parts:
        low, high = axis.scale(part.low), axis.scale(part.high)
        pieces.append(rect(low, bar_top, high - low, BAR, part.class_, part.title))
    if row.whisker:
        low, high = map(axis.scale, row.whisker)
        middle = bar_top + BAR / 2
        pieces += [line(x, middle - 4, x, middle + 4, "whisker") for x in (low, high)]
        pieces.append(line(low, middle, high, middle, "whisker"))
    if row.key is None:
        return join(pieces)
    whole = rect(0, top, 1, ROW - 1, "touch")  # all of the row can be touched
    return tag("g", whole, *pieces, data_marked_by=marked_by, data_key=row.key)


def marks(axis: Axis, bottom: float) -> Html:
    """Return what stands under a chart: the values of its marks, and what they are."""
    written = []
    for value, name in axis.marks:
        share = axis.scale(value)
        anchor = "start" if share < 0.03 else "end" if share > 0.93 else "middle"
        written.append(text(share, bottom + 12, name, anchor, "tick"))
    return join([*written, text(0.5, bottom + 26, axis.name, "middle", "tick")])


def linear_axis(
    top: float, name: str, form: Callable[[float], str], at: float | None = None
) -> Axis:
    """Return an axis from 0 to the largest value, with round marks."""
    step = round_step(top / 4)
    marks = [(step * i, form(step * i)) for i in range(int(top / step) + 1)]
    return Axis(linear(top), marks, name, at)


def log_axis(values: Sequence[float], name: str, form: Callable[[float], str]) -> Axis:
    """Return an axis over powers of ten around values."""
    low, high = decades(values)
    return Axis(logarithmic(low, high), [(v, form(v)) for v in ticks(low, high)], name)
