"""The picture of a roofline: points with MACs under the roof, the others as bars beside it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from minidnn.measure.peaks import Peaks
from minidnn.measure.roofline import Placed, roofs
from minidnn.plots import new_figure

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
MARKERS = "osD^vP*X"


def draw(found: Sequence[Placed], peaks: Peaks, path: Path, *, title: str = "") -> None:
    """Draw kernels under the machine's roof into a picture file.

    Numbers in the picture are names in its legend, so that close points stay legible.

    Raises
    ------
    MissingExtraError
        If matplotlib is not installed.
    """
    counted = sorted((p for p in found if p.flops), key=lambda p: -p.intensity)
    moved = sorted((p for p in found if not p.flops), key=lambda p: p.bytes_rate)
    names = max(len(counted), len(moved))
    sides = [bool(counted), bool(moved)]
    figure = new_figure(4 + 5.5 * sum(sides) + 2.5 * sides[0], max(6.5, 1.5 + 0.21 * names))
    axes = figure.subplots(1, sum(sides), squeeze=False, width_ratios=_widths(sides))[0]
    if counted:
        _points(axes[0], counted, peaks)
    if moved:
        _bars(axes[-1], moved, peaks)
    figure.suptitle(title, size="medium", wrap=True)
    figure.savefig(path, dpi=120)


def _widths(sides: Sequence[bool]) -> list[int]:
    return [width for width, wanted in zip((3, 2), sides, strict=True) if wanted]


def _points(axis: Any, found: Sequence[Placed], peaks: Peaks) -> None:
    axis.set(xscale="log", yscale="log", xlabel="FLOP per byte", ylabel="GFLOP/s")
    bandwidths = {level.name: level.bandwidth for level in peaks.levels}
    bandwidths = bandwidths or {"memory": peaks.bandwidth}
    left = min(0.5, 0.5 * min(p.intensity for p in found))
    right = 2 * max(max(p.intensity for p in found), peaks.flops / peaks.bandwidth)
    top = peaks.flops / 1e9
    axis.set_xlim(left, right)
    rates = [p.rate / 1e9 for p in found]
    axis.set_ylim(
        0.5 * min(*rates, left * peaks.bandwidth / 1e9, *(r / 1e9 for r in peaks.by_isa.values())),
        2 * max(*rates, *(r / 1e9 for r in roofs(found, peaks).values()), top),
    )
    for number, (name, bandwidth) in enumerate(bandwidths.items()):
        ridge = peaks.flops / bandwidth
        bottom = left * bandwidth / 1e9
        shade = str(0.65 * (1 - number / len(bandwidths)))
        if ridge > left:
            axis.plot([left, ridge, right], [bottom, top, top], color=shade, linewidth=1.2)
            axis.text(
                1.05 * left,
                1.15 * bottom,
                f"{name} {bandwidth / 1e9:.3g} GB/s",
                # In the data's own units the line's slope is the bandwidth.
                rotation=math.degrees(math.atan(bandwidth / 1e9)),
                rotation_mode="anchor",
                transform_rotates_text=True,
                size="small",
                color=shade,
            )
    for number, (isa, rate) in enumerate(roofs(found, peaks).items()):
        axis.plot([left, right], [rate / 1e9] * 2, color="grey", linewidth=0.7, linestyle=":")
        axis.annotate(
            f"{isa} {rate / 1e9:.4g} GFLOP/s",
            (right, rate / 1e9),
            xytext=(-3 - 120 * number, 3),  # beside each other: rates may be equal
            textcoords="offset points",
            ha="right",
            size="small",
        )
    ops = list(dict.fromkeys(p.ladder.partition(".")[0] for p in found))
    for number, point in enumerate(found, start=1):
        kind = ops.index(point.ladder.partition(".")[0])
        axis.plot(
            point.intensity,
            point.rate / 1e9,
            marker=MARKERS[kind % len(MARKERS)],
            color=COLOURS[kind % len(COLOURS)],
            linestyle="none",
            label=f"{number}  {_name(point)}  {point.share:.0%}",
        )
    _number(axis, found)
    axis.grid(alpha=0.3, which="major")
    axis.set_title("kernels with MACs (share of their roof)", size="medium")
    axis.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize="small", frameon=False)


def _name(point: Placed) -> str:
    return point.ladder if "shapes" in point.label else f"{point.ladder} {point.label}"


def _number(axis: Any, found: Sequence[Placed]) -> None:
    """Write numbers beside points, in turn on different sides where points are close."""
    sides = ((6, -3, "left"), (-6, -3, "right"), (0, 6, "center"), (0, -13, "center"))
    taken: list[tuple[float, float]] = []
    for number, point in enumerate(found, start=1):
        near = sum(
            abs(point.intensity / x - 1) < 0.12 and abs(point.rate / y - 1) < 0.12 for x, y in taken
        )
        taken.append((point.intensity, point.rate))
        right, up, align = sides[near % len(sides)]
        axis.annotate(
            str(number),
            (point.intensity, point.rate / 1e9),
            xytext=(right, up),
            textcoords="offset points",
            ha=align,
            size="small",
        )


def _bars(axis: Any, found: Sequence[Placed], peaks: Peaks) -> None:
    places = range(len(found))
    axis.barh(places, [p.bytes_rate / 1e9 for p in found], color="#56b4e9")
    axis.set_yticks(places, [_name(p) for p in found], size="small")
    for place, point in zip(places, found, strict=True):
        text = f" {point.share:.0%} of {point.place}"
        axis.annotate(text, (point.bytes_rate / 1e9, place), va="center", size="x-small")
    text = f"memory {peaks.bandwidth / 1e9:.3g} GB/s"
    axis.axvline(peaks.bandwidth / 1e9, color="grey", linestyle="--", label=text)
    axis.legend(loc="lower right", fontsize="small")
    axis.margins(x=0.35, y=0.02)
    axis.set_xlabel("GB/s of least bytes")
    axis.grid(alpha=0.3, axis="x")
    axis.set_title("kernels without MACs", size="medium")
