"""The report's second section: separable against full convolutions, and what stands around them."""

from __future__ import annotations

from collections.abc import Iterator

from minidnn.measure import separable, separable_report
from minidnn.measure.ratios import Ratio
from minidnn.measure.report import svg
from minidnn.measure.report.markup import (
    Html,
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
from minidnn.measure.report.stored import LEVELS, Report
from minidnn.measure.report.svg import Bar, Part
from minidnn.measure.report.words import ms, number, share
from minidnn.measure.rivals import ACTIVATIONS, MODES, NETWORKS
from minidnn.measure.separable import FASTEST, PASSES, TAPS, Layer, counts
from minidnn.measure.separable_report import Profile
from minidnn.measure.shapes import Map

ALL = "all layers"
LOOPS = {
    "naive": "naive loops",
    "numpy": "NumPy, full convolutions by im2col",
    FASTEST: "the fastest rungs",
}


def section(report: Report) -> Html:
    """Return counts, times and sentences, by layer, level and pass."""
    found = report.separable
    counted, *times, first, second, networks = separable_report.tables(found)
    reasons = [found.why(layer, name) for layer in found.layers for name in PASSES]
    return join(
        [
            prose(
                "A separable convolution is a depthwise 3x3 and a pointwise one. Of a full 3x3 "
                "convolution's multiply-accumulates (MACs) and parameters it needs 1/Cout + "
                "1/9. Of its time it needs more or less than that:"
            ),
            _overview(found),
            tag("h3", "One layer"),
            _layers(found),
            *(table(one) for one in (counted, *times)),
            _reasons(reasons),
            tag("h3", "Activations"),
            _activations(found),
            table(first),
            table(second),
            tag("h3", "Whole networks"),
            _networks(found),
            table(networks),
        ]
    )


def _reasons(sentences: list[str]) -> Html:
    items = [tag("li", sentence) for sentence in sentences]
    summary = tag("summary", "Why measured and predicted differ, layer by layer")
    return tag("details", summary, tag("ul", *items), prose(separable.MORAL))


def within(ratio: Ratio) -> str:
    """Return a ratio and its interval."""
    return f"{ratio.median:.3f} ({ratio.low:.3f} to {ratio.high:.3f})"


# --- all layers at a glance ----------------------------------------------------------------


def _overview(found: Profile) -> Html:
    rows, ratios = [], []
    for name, class_ in zip(PASSES, ("one", "two"), strict=True):
        for layer, times in found.layers.items():
            one = times[FASTEST][name]
            ratios += [one.ratio.high, layer.predicted]
            rows.append(
                Bar(
                    f"{layer.label} {name}",
                    f"{one.ratio.median:.3f}, predicted {layer.predicted:.3f}",
                    [
                        Part(0, one.ratio.median, class_),
                        Part(layer.predicted, layer.predicted, "predicted"),
                    ],
                    (one.ratio.low, one.ratio.high),
                )
            )
    axis = svg.linear_axis(max(ratios), "time of separable over full", number)
    said = []
    for name in PASSES:
        total = separable.whole(found.layers, FASTEST, name)
        said.append(f"{name} {total.ratio:.3f} ({total.predicted:.3f} predicted)")
    sentence = (
        "All separable layers together, each as often as the network has it, take this share of "
        f"the time of full ones with the fastest rungs: {', '.join(said)}."
    )
    legend = [("one", "forward"), ("two", "backward"), ("predicted", "predicted: 1/Cout + 1/9")]
    return figure(svg.bars(rows, axis, sentence), sentence, legend)


# --- one layer -------------------------------------------------------------------------------


def _layers(found: Profile) -> Html:
    layers = list(found.layers)
    names = [ALL, *(layer.label for layer in layers)]
    first = names[1]
    controls = picker(
        "layer",
        select("layer", [(name, name) for name in names], first),
        radios("level", "level", LEVELS, FASTEST),
        radios("pass", "pass", PASSES),
    )
    panels = [
        panel(
            "layer",
            f"{name}|{level}|{way}",
            content,
            shown=(name, level, way) == (first, FASTEST, PASSES[0]),
        )
        for level in LEVELS
        for way in PASSES
        for name, content in (
            (ALL, _whole(found, level, way)),
            *((layer.label, _layer(found, layer, level, way)) for layer in layers),
        )
    ]
    return join([controls, *panels])


def _times(full: float, parts: list[Part], separate: float, sentence: str) -> Html:
    rows = [
        Bar("full 3x3", f"{ms(full)} ms", [Part(0, full, "grey")]),
        Bar("separable", f"{ms(separate)} ms", parts),
    ]
    axis = svg.linear_axis(max(full, separate), "ms per image", ms)
    return svg.bars(rows, axis, sentence)


def _layer(found: Profile, layer: Layer, level: str, way: str) -> Html:
    one = found.layers[layer][level][way]
    sentence = (
        f"At {layer.label} {way} with {LOOPS[level]}, the separable convolution takes "
        f"{within(one.ratio)} of the full one's time; {layer.predicted:.3f} is predicted by "
        f"1/{layer.c_out} + 1/{TAPS}. Depthwise is {share(one.depthwise / one.separable)} of it."
    )
    parts = [Part(0, one.depthwise, "two"), Part(one.depthwise, one.separable, "one")]
    chart = _times(one.full, parts, one.separable, sentence)
    legend = [("grey", "full"), ("two", "depthwise part"), ("one", "pointwise part")]
    why = prose(found.why(layer, way)) if level == FASTEST else Html("")
    return join([figure(chart, sentence, legend), why, _shares(found, layer, level, way)])


def _shares(found: Profile, layer: Layer, level: str, way: str) -> Html:
    few, many = (
        counts(layer, found.batch, full=full, forward=way == "forward") for full in (False, True)
    )
    ratio = found.layers[layer][level][way].ratio
    shares = [
        ("multiply-accumulates", few.macs / many.macs, "grey", None),
        ("parameters", few.parameters / many.parameters, "grey", None),
        ("bytes moved at least", few.least_bytes / many.least_bytes, "grey", None),
        ("time", ratio.median, "one", (ratio.low, ratio.high)),
    ]
    rows = [
        Bar(name, f"{part:.3f}", [Part(0, part, class_)], whisker)
        for name, part, class_, whisker in shares
    ]
    top = max(1.0, ratio.high, *(part for _, part, _, _ in shares))
    axis = svg.linear_axis(top, "separable over full", number, at=1.0)
    sentence = (
        f"Counted per image at batch {found.batch}: {few.macs:,} MACs instead of {many.macs:,}, "
        f"{few.parameters:,} parameters instead of {many.parameters:,}, "
        f"{few.least_bytes / 1e6:.3g} MB instead of {many.least_bytes / 1e6:.3g}."
    )
    legend = [("grey", "counted"), ("one", "measured"), ("limit", "as much as full")]
    return figure(svg.bars(rows, axis, sentence), sentence, legend)


def _whole(found: Profile, level: str, way: str) -> Html:
    total = separable.whole(found.layers, level, way)
    sentence = (
        f"All these layers {way} with {LOOPS[level]}, each as often as the network has it: "
        f"separable convolutions take {total.ratio:.3f} of the full ones' time, "
        f"{total.predicted:.3f} of their MACs."
    )
    chart = _times(total.full, [Part(0, total.separable, "one")], total.separable, sentence)
    return figure(chart, sentence, [("grey", "full"), ("one", "separable")])


# --- around them ------------------------------------------------------------------------------


def _activations(found: Profile) -> Html:
    maps = list(found.activations)
    labels = [at.label for at in maps]
    controls = picker(
        "activation",
        select("map", [(label, label) for label in labels], labels[0]),
        radios("pass", "activation-pass", PASSES),
    )
    panels = [
        panel("activation", f"{at.label}|{way}", content, shown=(at, way) == (maps[0], PASSES[0]))
        for at, way, content in _activation_panels(found)
    ]
    return join([controls, *panels])


def _activation_panels(found: Profile) -> Iterator[tuple[Map, str, Html]]:
    for at, both in found.activations.items():
        for way in PASSES:
            one = both[way]
            ratio = one.prelu_over_leaky
            verdict = "no difference that can be told" if ratio.low <= 1 <= ratio.high else (
                "slower" if ratio.low > 1 else "faster"
            )  # fmt: skip
            of = "" if one.of_separable is None or one.of_full is None else (
                f" It takes {share(one.of_separable)} of the time of the separable convolution "
                f"before it, and {share(one.of_full)} of a full one's."
            )  # fmt: skip
            sentence = (
                f"At {at.label} {way}, PReLU takes {within(ratio)} times as long as leaky ReLU: "
                f"{verdict}.{of}"
            )
            rows = [
                Bar(
                    name,
                    f"{number(1e6 * one.seconds[name])} µs, {number(one.gbs[name])} GB/s",
                    [Part(0, one.seconds[name], "one" if name == "prelu" else "grey")],
                )
                for name in ACTIVATIONS
            ]
            axis = svg.linear_axis(
                max(one.seconds.values()), "µs per image", lambda v: number(1e6 * v)
            )
            yield at, way, figure(svg.bars(rows, axis, sentence), sentence)


def _networks(found: Profile) -> Html:
    rows, said = [], []
    for mode in MODES:
        one = found.networks[mode]
        for name, class_ in zip(NETWORKS, ("one", "grey"), strict=True):
            rate = one.rates[name]
            rows.append(
                Bar(f"{name}, {mode}", f"{number(rate, 4)} images/s", [Part(0, rate, class_)])
            )
        said.append(f"{mode} takes {within(one.ratio)} of its time")
    predicted = found.networks[MODES[0]].predicted
    top = max(rate for one in found.networks.values() for rate in one.rates.values())
    axis = svg.linear_axis(top, "images per second", number)
    sentence = (
        f"QuickNet needs {predicted:.3f} of the MACs of the same network with full convolutions "
        f"(plain_cnn): {', '.join(said)}."
    )
    return figure(svg.bars(rows, axis, sentence), sentence)
