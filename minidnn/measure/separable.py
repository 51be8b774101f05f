"""Separable against full 3x3 convolutions at a network's shapes (Ghosh 2017, section 2.3).

A separable convolution is a depthwise 3x3 and a pointwise one. It takes H W Cin (9 + Cout)
multiply-accumulates, a full one 9 H W Cin Cout: the ratio is 1/Cout + 1/9, forward and
backward. What is measured are the kernels alone, at three levels: the naive loops, NumPy
(full convolutions by a matrix of windows, im2col), and what a call of the ladder runs.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from minidnn.kernels.ladder import load_all
from minidnn.measure import timing
from minidnn.measure.peaks import Peaks
from minidnn.measure.ratios import Ratio, speed_ratio
from minidnn.measure.shapes import Shapes

FLOAT, TAPS = 4, 9
PASSES = ("forward", "backward")
FASTEST = "fastest"
# Images that the slow levels see; times of all levels are given per image.
SLOW = {"naive": 1, "numpy": 8}
# How many turns each level gets: at most, and where little time is to be spent.
TURNS = {"naive": (3, 1), "numpy": (5, 3), FASTEST: (9, 5)}

_SAME = {"stride": (1, 1), "pads": (1, 1, 1, 1)}
_CONV = {**_SAME, "dilation": (1, 1), "groups": 1}
Shape = tuple[int, ...]


class Layer(NamedTuple):
    """A separable layer: height and width of its map, channels in and out; how many."""

    size: int
    c_in: int
    c_out: int
    times: int

    @property
    def label(self) -> str:
        """Name in tables."""
        return f"{self.size}x{self.size}x{self.c_in}->{self.c_out}"

    @property
    def predicted(self) -> float:
        """Return the share of a full convolution's multiply-accumulates: 1/Cout + 1/9."""
        return 1 / self.c_out + 1 / TAPS


class Call(NamedTuple):
    """One kernel's call: its ladder, the shapes it reads and writes, and its work."""

    ladder: str
    inputs: tuple[Shape, ...]
    outputs: tuple[Shape, ...]
    settings: dict[str, Any]
    macs: int

    @property
    def is_full(self) -> bool:
        """Whether it is part of the full convolution."""
        return self.ladder.startswith("conv2d.")

    @property
    def is_forward(self) -> bool:
        """Whether it is part of the forward pass."""
        return self.ladder.endswith(".forward")

    @property
    def least_bytes(self) -> int:
        """Return the bytes moved at least: inputs read once, outputs written once."""
        return FLOAT * sum(_volume(shape) for shape in (*self.inputs, *self.outputs))


def _volume(shape: Shape) -> int:
    return int(np.prod(shape, dtype=np.int64))


def layers(shapes: Shapes) -> list[Layer]:
    """Return the separable layers of a network."""
    return [Layer(*p) for p in shapes.pointwise]


def calls(layer: Layer, batch: int) -> list[Call]:
    """Return what a layer calls, as separable and as full convolution, both passes."""
    size, c_in, c_out, _ = layer
    x, y = (batch, size, size, c_in), (batch, size, size, c_out)
    taps, matrix, full = (3, 3, c_in), (c_in, c_out), (3, 3, c_in, c_out)
    nine, product = TAPS * _volume(x), _volume(x) * c_out
    input_size, kernel_size = {"size": (size, size)}, {"kernel_size": (3, 3)}
    return [
        Call("depthwise.forward", (x, taps), (x,), _SAME, nine),
        Call("pointwise.forward", (x, matrix), (y,), {}, product),
        Call("conv2d.forward", (x, full), (y,), _CONV, TAPS * product),
        Call("pointwise.backward_input", (y, matrix), (x,), {}, product),
        Call("pointwise.backward_weight", (y, x), (matrix,), {}, product),
        Call("depthwise.backward", (x, x, taps), (x, taps), _SAME, 2 * nine),
        Call("conv2d.backward_input", (y, full), (x,), {**_CONV, **input_size}, TAPS * product),
        Call("conv2d.backward_weight", (y, x), (full,), {**_CONV, **kernel_size}, TAPS * product),
    ]


class Counts(NamedTuple):
    """What one image costs, by arithmetic."""

    macs: int
    parameters: int
    least_bytes: float


def counts(layer: Layer, batch: int, *, full: bool, forward: bool) -> Counts:
    """Count one pass of a layer; bytes are per image, of weights read once a batch."""
    own = [c for c in calls(layer, batch) if (c.is_full, c.is_forward) == (full, forward)]
    parameters = TAPS * layer.c_in * layer.c_out if full else layer.c_in * (TAPS + layer.c_out)
    moved = sum(c.least_bytes for c in own) / batch
    return Counts(sum(c.macs for c in own) // batch, parameters, moved)


# --- times -----------------------------------------------------------------------------


class Pass(NamedTuple):
    """One pass of a layer at one level: seconds per image, and their ratio with its interval."""

    separable: float
    depthwise: float
    full: float
    ratio: Ratio


Times = dict[str, dict[str, Pass]]  # level -> pass


def levels(batch: int) -> dict[str, int]:
    """Return how many images each level sees at a time."""
    return {name: min(few, batch) for name, few in SLOW.items()} | {FASTEST: batch}


def measure(layer: Layer, batch: int, *, quick: bool = False) -> Times:
    """Time a layer's kernels in turns, level by level."""
    found: Times = {}
    for level, images in levels(batch).items():
        work = calls(layer, images)
        arrays = draw(work)
        actions = {call.ladder: _action(call, level, arrays) for call in work}
        rounds = TURNS[level][1 if quick else 0]
        turns = timing.take_turns(actions, rounds=rounds)
        found[level] = {name: passed(work, turns, name == "forward", images) for name in PASSES}
    return found


def draw(work: Sequence[Call]) -> dict[tuple[Shape, int], Any]:
    """Return float32 arrays of the shapes that calls read; two where one call reads two."""
    rng = np.random.default_rng(3)
    wanted = {key for call in work for key in _keys(call)}
    return {key: rng.standard_normal(key[0], np.float32) for key in sorted(wanted)}


def _keys(call: Call) -> list[tuple[Shape, int]]:
    return [(shape, call.inputs[:i].count(shape)) for i, shape in enumerate(call.inputs)]


def _action(
    call: Call, level: str, arrays: Mapping[tuple[Shape, int], Any]
) -> Callable[[], object]:
    ladder = load_all()[call.ladder]
    function = ladder if level == FASTEST else ladder[level]
    args = [arrays[key] for key in _keys(call)]
    return lambda: function(*args, **call.settings)


def passed(
    work: Sequence[Call], turns: Mapping[str, Sequence[float]], forward: bool, images: int
) -> Pass:
    """Add up what belongs to one pass, turn by turn."""

    def total(choose: Callable[[Call], bool]) -> list[float]:
        own = [turns[c.ladder] for c in work if c.is_forward == forward and choose(c)]
        return [sum(together) / images for together in zip(*own, strict=True)]

    separable, full = total(lambda c: not c.is_full), total(lambda c: c.is_full)
    depthwise = total(lambda c: c.ladder.startswith("depthwise."))
    middle = statistics.median
    return Pass(middle(separable), middle(depthwise), middle(full), speed_ratio(full, separable))


class Whole(NamedTuple):
    """All separable layers of a network together, one pass at one level."""

    separable: float
    full: float
    predicted: float

    @property
    def ratio(self) -> float:
        """Return how long separable takes, of full."""
        return self.separable / self.full


def whole(found: Mapping[Layer, Times], level: str, name: str) -> Whole:
    """Add up a pass over all layers, each as often as the network has it."""
    separable = sum(layer.times * times[level][name].separable for layer, times in found.items())
    full = sum(layer.times * times[level][name].full for layer, times in found.items())
    few, many = (
        sum(x.times * counts(x, 1, full=is_full, forward=True).macs for x in found)
        for is_full in (False, True)
    )
    return Whole(separable, full, few / many)


# --- why they differ ---------------------------------------------------------------------

CLOSE = 0.1  # by which measured and predicted may differ and still be called equal


def why(layer: Layer, name: str, found: Pass, batch: int, peaks: Peaks) -> str:
    """Return, in a sentence, why a pass of the fastest rungs does not take what is predicted.

    Time is work over rate: so it names the depthwise part's share of work and of time, the rate
    at which it moves bytes, and at which pointwise and full convolution multiply.
    """
    off = found.ratio.median / layer.predicted
    told = "as predicted" if abs(off - 1) <= CLOSE else f"{off:.2g}x the prediction"
    own = [c for c in calls(layer, batch) if c.is_forward == (name == "forward")]
    thin = [c for c in own if c.ladder.startswith("depthwise.")]
    products = sum(c.macs for c in own if c.ladder.startswith("pointwise.")) / batch
    moved = sum(c.least_bytes for c in thin) / batch / found.depthwise
    share = TAPS / (TAPS + layer.c_out)
    pointwise = 2 * products / max(found.separable - found.depthwise, 1e-12)
    full = 2 * TAPS * products / found.full
    over = full > peaks.flops
    bound = (
        f"{moved / 1e9:.3g} GB/s, {moved / peaks.bandwidth:.0%} of memory's rate"
        if moved < peaks.bandwidth
        else f"{moved / 1e9:.3g} GB/s, from the caches"
    )
    return (
        f"{layer.label} {name}: {found.ratio.median:.3f} measured, {layer.predicted:.3f} predicted "
        f"({told}): depthwise is {share:.0%} of separable's MACs and "
        f"{found.depthwise / found.separable:.0%} of its time ({bound}); pointwise multiplies at "
        f"{pointwise / 1e9:.3g} GFLOP/s ({pointwise / peaks.flops:.0%} of peak), full at "
        f"{full / 1e9:.3g} ({full / peaks.flops:.0%}"
        f"{', for products with the zeros around the map are counted, not done' * over})."
    )


MORAL = (
    "Why measured and predicted differ: the prediction counts multiplications. A depthwise "
    "convolution does 9 per number it reads, so memory sets its pace;\na pointwise or full one "
    "does hundreds, and arithmetic sets it. So the depthwise part takes more time than its share "
    "of the MACs, and on large maps\nseparable convolutions even move more bytes. Where the loops "
    "of full convolutions run at a lower rate, separable ones gain more than predicted."
)
