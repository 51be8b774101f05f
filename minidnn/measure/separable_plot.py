"""The picture of `minidnn profile-separable`: milliseconds of separable beside full."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from minidnn.measure import separable
from minidnn.measure.separable import FASTEST, PASSES, Layer
from minidnn.measure.separable_report import Profile
from minidnn.plots import new_figure

# Told apart by shape as well as by colour (Okabe and Ito's), so grey print will do.
LOOKS = {
    "naive": ("naive loops", "o", "#d55e00"),
    "numpy": ("NumPy, im2col", "s", "#0072b2"),
    FASTEST: ("fastest rung", "D", "#000000"),
}
STEP, GAP = 1.0, 0.9  # from line to line, and what groups lie further apart
DOTS_PER_INCH = 180


class Line(NamedTuple):
    """Separable against full at one level: seconds per image, and their ratio."""

    level: str
    separable: float
    full: float
    ratio: float
    predicted: float


class Group(NamedTuple):
    """The lines of a layer, of all layers, or of the whole network."""

    label: str
    predicted: float
    lines: tuple[Line, ...]


def groups(found: Profile, name: str) -> Iterator[Group]:
    """Yield what one panel shows, from top to bottom.

    Parameters
    ----------
    found : Profile
    name : {"forward", "backward"}
        The network stands at inference beside forward, at a step of training beside backward.
    """
    for layer, times in found.layers.items():
        lines = tuple(
            Line(level, one.separable, one.full, one.ratio.median, layer.predicted)
            for level, one in ((level, times[level][name]) for level in LOOKS)
        )
        yield Group(_label(layer), layer.predicted, lines)
    sums = {level: separable.whole(found.layers, level, name) for level in LOOKS}
    lines = tuple(
        Line(level, one.separable, one.full, one.ratio, one.predicted)
        for level, one in sums.items()
    )
    number = sum(layer.times for layer in found.layers)
    yield Group(f"all layers ({number})", lines[0].predicted, lines)
    one = found.networks["inference" if name == "forward" else "training"]
    few, many = (1 / one.rates[network] for network in ("quicknet", "plain_cnn"))
    line = Line(FASTEST, few, many, one.ratio.median, one.predicted)
    yield Group("whole network", one.predicted, (line,))


def _label(layer: Layer) -> str:
    often = f" ({layer.times} times)" if layer.times > 1 else ""
    return f"{layer.size}x{layer.size}, {layer.c_in}->{layer.c_out}{often}"


def draw(found: Profile, path: Path, *, title: str = "") -> None:
    """Draw separable and full times of every layer and level into a picture file.

    The title also stands in the file's own data, so that a picture can be told from an older one.

    Raises
    ------
    MissingExtraError
        If matplotlib is not installed.
    """
    rows = [len(group.lines) for group in groups(found, PASSES[0])]
    figure = new_figure(9, 1.9 + 0.17 * sum(rows) + 0.14 * len(rows))
    axes = figure.subplots(1, 2, sharex=True, sharey=True)
    for axis, name in zip(axes, PASSES, strict=True):
        _panel(axis, list(groups(found, name)))
        mode = "inference" if name == "forward" else "a step of training"
        axis.set_title(f"{name} (whole network: {mode})", size=9.5)
    figure.supxlabel("milliseconds per image (a log scale: equal lengths are equal ratios)", size=9)
    _explain(figure, title)
    named = path.suffix in (".png", ".svg", ".pdf")
    figure.savefig(path, dpi=DOTS_PER_INCH, metadata={"Title": title} if named else None)


def _panel(axis: Any, shown: Sequence[Group]) -> None:
    axis.set_xscale("log")
    place, middles = 0.0, []
    for number, group in enumerate(shown):
        bottom = place + STEP * (len(group.lines) - 1)
        middles.append((place + bottom) / 2)
        if number % 2:
            half = (STEP + GAP) / 2
            axis.axhspan(place - half, bottom + half, color="0.94", linewidth=0)
        for line in group.lines:
            _line(axis, line, place)
            place += STEP
        place += GAP
    labels = [f"{group.label}\npredicted {group.predicted:.3f}" for group in shown]
    axis.set_yticks(middles, labels, size=8.5, linespacing=1.15)
    axis.tick_params(axis="y", length=0)
    axis.tick_params(axis="x", labelsize=8.5)
    axis.set_ylim(place - GAP / 2, -1 - GAP / 2)  # the first group is at the top
    axis.margins(x=0.04)
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.grid(axis="x", alpha=0.35, linewidth=0.6)
    axis.set_axisbelow(True)
    axis.text(1.02, -0.95, "measured", size=8, va="center", transform=axis.get_yaxis_transform())


def _line(axis: Any, line: Line, place: float) -> None:
    """Draw both times, what lies between them, and the ratio at the right edge."""
    _, marker, colour = LOOKS[line.level]
    few, many = 1e3 * line.separable, 1e3 * line.full
    axis.plot([few, many], [place, place], color=colour, linewidth=1.1, alpha=0.55)
    look = {"marker": marker, "color": colour, "markersize": 5, "linestyle": "none"}
    axis.plot(many, place, **look, markerfacecolor="white")
    axis.plot(few, place, **look)
    axis.plot(many * line.predicted, place, marker="|", color="black", markersize=9, mew=1.3)
    axis.text(
        1.03,
        place,
        f"{line.ratio:.3f}",
        size=8,
        va="center",
        color=colour,
        transform=axis.get_yaxis_transform(),
    )


def _explain(figure: Any, title: str) -> None:
    """Put the title and what the marks mean above the panels."""
    from matplotlib.lines import Line2D

    entries = [
        Line2D([], [], color=colour, marker=marker, markersize=5, linewidth=1.1, label=label)
        for label, marker, colour in LOOKS.values()
    ]
    plain: dict[str, Any] = {"color": "0.3", "linestyle": "none", "marker": "o", "markersize": 5}
    entries += [
        Line2D([], [], **plain, label="filled: separable"),
        Line2D([], [], **plain, markerfacecolor="white", label="open: full 3x3"),
        Line2D(
            [],
            [],
            color="black",
            linestyle="none",
            marker="|",
            markersize=9,
            label="predicted: full * (1/Cout + 1/9)",
        ),
    ]
    by_column = [entries[i] for i in (0, 3, 1, 4, 2, 5)]  # levels above, marks below
    figure.legend(
        handles=by_column,
        loc="outside upper center",
        ncols=3,
        fontsize=8.5,
        frameon=False,
        columnspacing=3,
        title=title,
        title_fontproperties={"size": 10},
    )
