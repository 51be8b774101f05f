"""What 8-bit quantisation costs a trained network: accuracy, and the noise of every layer."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from minidnn.data import Batches, Dataset
from minidnn.errors import ConfigError
from minidnn.evaluation import Evaluation, evaluate
from minidnn.measure.tables import Table
from minidnn.module import Module
from minidnn.plan.compiler import Plan
from minidnn.quantization.calibration import METHODS, Report, report
from minidnn.quantization.comparison import LayerNoise, Lost, layer_noise, lost
from minidnn.quantization.post_training import BATCH, Prepared, prepare, steps_of, vanhoucke
from minidnn.quantization.quantizer import quantise
from minidnn.tensor import Array

# Images of the calibration that layers' noise is measured on.
NOISE_IMAGES = 200
VANHOUCKE = "scale per layer (Vanhoucke 2011)"

FINETUNED = "fine-tuned"
ACCURACY_TEXT = (
    "points lost against float32 on the same images, in pairs: the interval is that of the "
    "difference. mse, percentile,\nminmax: how the range of every array is chosen; a scale per "
    "output channel, channels evened out."
)
LAYER_TEXT = (
    "seen: what the layer's output held, channels evened out; mse, percentile: the range that 256 "
    "codes would cover, and the\nsignal-to-noise ratio of rounding to them. here: that of the "
    "output, with all layers before it in 8 bits too. alone: of the\nnetwork's output, with this "
    "layer alone in 8 bits; 6 dB are one bit. of all noise: its share of what all cause alone."
)
MOST = 3  # layers that are named as the costliest

Normalisation = tuple[Array, Array]


@dataclass(frozen=True)
class Row:
    """One way to quantise.

    Attributes
    ----------
    name : str
    accuracies : list of float
        One per draw of training images to calibrate on.
    lost : Lost
        Against float32, in pairs, in the mean over the draws.
    """

    name: str
    accuracies: list[float]
    lost: Lost

    @property
    def accuracy(self) -> float:
        """Mean over the draws."""
        return float(np.mean(self.accuracies))


@dataclass(frozen=True)
class Drawn:
    """A draw of training images, the network prepared with it, and plans by name."""

    images: Dataset
    prepared: Prepared
    plans: dict[str, Plan]


def draw(train: Dataset, count: int, seed: int, number: int) -> Dataset:
    """Return so many training images, chosen by a seed and the number of the draw.

    Raises
    ------
    ConfigError
        If there are not so many.
    """
    if not 1 <= count <= len(train):
        raise ConfigError(
            f"--calibrate: expected 1 to {len(train):,} (all training images of {train.name}), "
            f"got {count}"
        )
    order = np.random.default_rng((seed, number)).permutation(len(train))
    return train.subset(np.sort(order[:count]))


def inputs(images: Dataset, normalisation: Normalisation) -> Iterable[Array]:
    """Yield batches of a data set as a network takes them."""
    mean, std = normalisation
    batches = Batches(images, batch_size=BATCH, mean=mean, std=std, shuffle=False)
    return (x for x, _ in batches.epoch(0))


def quantised(
    model: Module, images: Dataset, normalisation: Normalisation, keep: Collection[str]
) -> Drawn:
    """Quantise a model in every way, with one draw of images."""
    shape = images.input_shape

    def batches() -> Iterable[Array]:
        return inputs(images, normalisation)

    prepared = prepare(model, shape, batches)
    plans = {method: prepared.quantised(method, keep).plan() for method in METHODS}
    return Drawn(images, prepared, {**plans, VANHOUCKE: vanhoucke(model, shape, batches)})


def compared(plain: Evaluation, plans: Sequence[dict[str, Plan]], batches: Batches) -> list[Row]:
    """Evaluate the plans of every draw on the same pictures as float32."""
    rows = []
    for name in plans[0]:
        found = [evaluate(plan[name], batches) for plan in plans]
        rows.append(
            Row(name, [one.accuracy for one in found], lost(plain.right, [e.right for e in found]))
        )
    return rows


def accuracy_table(plain: Evaluation, rows: Sequence[Row], chosen: str, title: str) -> Table:
    """Return accuracy in float32 and in 8 bits, side by side."""
    lines = [["float32", _percent(plain.accuracy), "", "", "", "", ""]]
    for row in rows:
        spread = [_percent(value) for value in row.accuracies] if len(row.accuracies) > 1 else []
        name = f"8-bit, {row.name}{' *' if row.name == chosen else ''}"
        interval = f"{100 * row.lost.low:.2f} to {100 * row.lost.high:.2f}"
        alone = [f"{count:.4g}" for count in (row.lost.only_first, row.lost.only_second)]
        points = f"{100 * row.lost.share:.2f}"
        lines.append([name, _percent(row.accuracy), points, interval, *alone, ", ".join(spread)])
    columns = ("", "accuracy", "points lost", "95 %", "float32 alone right", "8-bit alone", "draws")
    return Table(title, columns, lines)


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"


@dataclass(frozen=True)
class Layers:
    """What is known of every layer."""

    ranges: Report
    noise: list[LayerNoise]


def layers(
    drawn: Drawn, method: str, normalisation: Normalisation, keep: Collection[str]
) -> Layers:
    """Measure the noise of every layer on some of the images of a draw."""
    prepared = drawn.prepared
    ranges = report(prepared.program, prepared.seen, method)
    some = inputs(drawn.images.first(NOISE_IMAGES), normalisation)
    kept = steps_of(prepared.program, keep)
    quantised = quantise(prepared.program, ranges.codes, keep=kept)
    return Layers(ranges, layer_noise(prepared, quantised, ranges.codes, some))


LAYER_COLUMNS = (
    "layer", "seen", "mse", "dB", "percentile", "dB", "here dB", "alone dB", "of all noise",
)  # fmt: skip


def layers_table(found: Layers, prepared: Prepared) -> Table:
    """Return a row per step: its ranges, what rounding them costs, and what 8 bits cost."""
    by_value = {row.value: row for row in found.ranges.rows}
    rows = []
    for step, noise in zip(prepared.program.steps, found.noise, strict=True):
        seen = by_value[step.output]
        cells = [noise.layers[0], f"{seen.low:.3g} to {seen.high:.3g}"]
        for method in ("mse", "percentile"):
            codes = seen.codes[method]
            cells += [f"{codes.low:.3g} to {codes.high:.3g}", _number(seen.decibels[method])]
        alone = [_number(noise.alone), f"{100 * noise.share:.1f} %"]
        rows.append([*cells, _number(noise.here), *(alone if noise.on_codes else ("float32", ""))])
    return Table("layers", LAYER_COLUMNS, rows)


def _number(decibels: float) -> str:
    return f"{decibels:.1f}" if math.isfinite(decibels) else "exact"


def costliest(found: Layers) -> str:
    """Return a sentence on the layers that cause most of the noise."""
    worst = sorted((n for n in found.noise if n.on_codes), key=lambda n: -n.share)[:MOST]
    named = ", ".join(f"{n.layers[0]} ({100 * n.share:.0f} %)" for n in worst)
    return f"layers that cost most, by the noise they cause alone: {named}"


def as_json(plain: Evaluation, rows: Sequence[Row], found: Layers | None) -> dict[str, Any]:
    """Return plain numbers, strings, lists and dicts."""
    values: dict[str, Any] = {
        "float32": {"accuracy": plain.accuracy, "loss": plain.loss, "images": plain.images},
        "int8": [{**asdict(row), "accuracy": row.accuracy} for row in rows],
    }
    if found is not None:
        values["layers"] = [asdict(noise) for noise in found.noise]
        values["ranges"] = [asdict(row) for row in found.ranges.rows]
    return values
