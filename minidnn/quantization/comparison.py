"""What 8 bits cost: accuracy on the same pictures, and the noise of every layer."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from minidnn.plan.compiler import Plan
from minidnn.plan.program import Codes, Program, Shape
from minidnn.quantization.post_training import Prepared
from minidnn.quantization.quantizer import Quantised, quantise
from minidnn.tensor import Array

NORMAL = 1.96  # standard deviations that hold 95 % of a normal distribution


@dataclass(frozen=True)
class Lost:
    """How much less often 8-bit models are right than one in float32.

    Attributes
    ----------
    share, low, high : float
        Accuracy lost, in the mean over the models, and where it lies with 95 % confidence.
    only_first, only_second : float
        Pictures that one alone takes for what they are, in the mean.
    """

    share: float
    low: float
    high: float
    only_first: float
    only_second: float

    def __str__(self) -> str:
        found = [f"{100 * value:.2f}" for value in (self.share, self.low, self.high)]
        return f"{found[0]} points ({found[1]} to {found[2]})"


def lost(first: Array, seconds: Sequence[Array]) -> Lost:
    """Compare models picture by picture.

    Most pictures are right or wrong for all, so the interval of the difference is far narrower
    than that of either accuracy: the normal one for paired differences, with half a picture added
    to either side (Agresti and Min 2005, "Simple improved confidence intervals for comparing
    matched proportions").

    Parameters
    ----------
    first : ndarray of bool of shape (N,)
        Which pictures it takes for what they are.
    seconds : sequence of ndarray of bool of shape (N,)
        The same of each 8-bit model, such as of several calibrations.
    """
    right = np.mean(np.asarray(seconds, np.float64), axis=0)
    difference = first - right
    n, total, squares = len(first), float(difference.sum()), float(np.square(difference).sum())
    middle = total / (n + 2)
    spread = NORMAL * math.sqrt(squares + 1 - total * middle) / (n + 2)
    apart = float(np.maximum(difference, 0).sum()), float(np.maximum(-difference, 0).sum())
    return Lost(total / n, middle - spread, middle + spread, *apart)


@dataclass(frozen=True)
class LayerNoise:
    """What 8 bits do to one step.

    Attributes
    ----------
    layers : list of str
    on_codes : bool
        Whether it runs on codes at all.
    here : float
        Signal-to-noise ratio of its output in dB, with all before it on codes.
    alone : float
        That of the network's output, with this step alone on codes.
    share : float
        Of the noise of all steps, each alone.
    """

    layers: list[str]
    on_codes: bool
    here: float
    alone: float
    share: float


def layer_noise(
    prepared: Prepared, quantised: Quantised, codes: dict[int, Codes], images: Iterable[Array]
) -> list[LayerNoise]:
    """Measure every step's noise on some images.

    Parameters
    ----------
    prepared : Prepared
        The network in float32.
    quantised : Quantised
        The same on codes.
    codes : dict of int to Codes
        It was made with.
    images : iterable of ndarray of float32 of shape (N, ...)
        A few hundred are enough.
    """
    batches, program = list(images), prepared.program
    steps = program.steps
    here = _here(program, quantised, batches)
    chosen = sorted(quantised.on_codes)
    wanted = [_outputs(Plan(program), batch) for batch in batches]
    signal = sum(float(np.square(want).sum()) for want in wanted)
    noise = {}
    for i in chosen:
        others = frozenset(range(len(steps))) - {i}
        plan = quantise(program, codes, keep=others).plan()
        pairs = zip(batches, wanted, strict=True)
        noise[i] = sum(float(np.square(_outputs(plan, x) - want).sum()) for x, want in pairs)
    total = sum(noise.values())
    return [
        LayerNoise(
            step.labels,
            i in noise,
            _decibels(*here[step.output]),
            _decibels(signal, noise.get(i, 0.0)),
            noise.get(i, 0.0) / total if total else 0.0,
        )
        for i, step in enumerate(steps)
    ]


def _here(
    program: Program, quantised: Quantised, batches: Iterable[Array]
) -> dict[int, tuple[float, float]]:
    """Return the signal and the noise of every step's output."""
    shown = {step.output: program.sizes[step.output] for step in program.steps}
    there = quantised.program
    seen: list[tuple[int, Shape]] = [(quantised.values[v], (s,)) for v, s in shown.items()]
    plain = Plan(replace(program, outputs=[(v, (size,)) for v, size in shown.items()]))
    coded = Plan(replace(there, outputs=seen))
    found = dict.fromkeys(shown, (0.0, 0.0))
    for batch in batches:
        pairs = zip(_tuple(plain(batch)), _tuple(coded(batch)), strict=True)
        for (value, _), (number, _), (want, got) in zip(shown.items(), seen, pairs, strict=True):
            codes = there.codes.get(number)
            real = got if codes is None else (got.astype(np.float32) - codes.zero) * codes.scale
            signal, noise = found[value]
            found[value] = (
                signal + float(np.square(want).sum(dtype=np.float64)),
                noise + float(np.square(want - real).sum(dtype=np.float64)),
            )
    return found


def _tuple(found: object) -> tuple[Array, ...]:
    return found if isinstance(found, tuple) else (np.asarray(found),)


def _outputs(plan: Plan, images: Array) -> Array:
    """Return all outputs in one row per image, as float64."""
    rows = [np.asarray(y, np.float64).reshape(len(images), -1) for y in _tuple(plan(images))]
    return np.concatenate(rows, axis=1)


def _decibels(signal: float, noise: float) -> float:
    if not noise or not signal:
        return math.inf if not noise else -math.inf
    return 10 * math.log10(signal / noise)
