"""A report's measurements, made up: nothing is run, and every number is another one."""

from __future__ import annotations

import copy
import itertools
import json
import math
from typing import Any

from minidnn.measure import peaks, profiled, results
from minidnn.measure.ladders import Measured, Row
from minidnn.measure.peaks import Level
from minidnn.measure.ratios import Ratio
from minidnn.measure.report.stored import LEVELS
from minidnn.measure.rivals import ACTIVATIONS, MODES, NETWORKS, Activation, EndToEnd
from minidnn.measure.roofline import place
from minidnn.measure.separable import PASSES, Layer, Pass
from minidnn.measure.separable_report import Profile
from minidnn.measure.shapes import Map

_numbers = itertools.count(1)


def _other(unit: float = 1e-3) -> float:
    """Return a number that was not there before."""
    return unit * (1 + 0.0137 * next(_numbers))


LEVELS_OF_MEMORY = (
    Level("L1", 2**16, 2**14, 4.11e11, 1.5e11),
    Level("L2", 2**20, 2**18, 1.52e11, 9.1e10),
    Level("memory", math.inf, 2**26, 2.13e10, 1.9e10),
)
RATES = {"avx512": 2.31e11, "avx2": 1.87e11, "portable": 6.1e10}
ONE = peaks.assemble(1, {name: rate / 2.2 for name, rate in RATES.items()}, LEVELS_OF_MEMORY)
PEAKS = peaks.assemble(2, RATES, LEVELS_OF_MEMORY, ONE)
LAYERS = (Layer(28, 64, 128, 1), Layer(14, 256, 256, 2))
MAPS = (Map(28, 128), Map(14, 256))
OPS = ("depthwise.forward", "depthwise.backward", "gemm.nn", "prelu.forward", "prelu.backward")
PARTS = ("features.stem.conv", "features.s1_1.conv.depthwise+pointwise+norm+act", "head.linear")


def _ratio() -> Ratio:
    middle = _other(0.1)
    return Ratio(middle, 0.9 * middle, 1.2 * middle)


def _pass() -> Pass:
    depthwise = _other()
    return Pass(depthwise + _other(), depthwise, _other(1e-2), _ratio())


def _activation() -> Activation:
    return Activation(
        {name: _other(1e-5) for name in ACTIVATIONS},
        {name: _other(10.0) for name in ACTIVATIONS},
        Ratio(_other(1.0), 0.9, 1.9),
        _other(0.05),
        _other(0.01),
    )


def _separable() -> Profile:
    return Profile(
        batch=8,
        quick=True,
        layers={
            layer: {level: {name: _pass() for name in PASSES} for level in LEVELS}
            for layer in LAYERS
        },
        activations={at: {name: _activation() for name in PASSES} for at in MAPS},
        networks={
            mode: EndToEnd({name: _other(200.0) for name in NETWORKS}, _ratio(), 0.2)
            for mode in MODES
        },
        peaks=PEAKS,
    )


def _ladder(name: str) -> Measured:
    rows = []
    for i, rung in enumerate(("python", "numpy", "naive", "simd")):
        seconds = _other(10.0**-i)
        rows.append(
            Row(
                rung,
                f"The idea of {rung} in {name}.",
                rung == "simd",
                seconds,
                0.9 * seconds,
                1.1 * seconds,
                5 if i else 0,
                _other(1.0),
                _other(0.01),
                _other(2.0),
                _other(0.2),
                _other(9.0) if i else None,
                _other(1e-7) if i else None,
            )
        )
    macs = 0 if name.startswith("prelu") else 7_225_344
    return Measured(name, "28x28x64", 8, macs, 3_213_568, rows)


def _part(macs: int) -> profiled.Pass:
    return profiled.Pass(_other(), 1, macs, 10_000_000, 1, 2_000_000, 0)


def _step() -> profiled.Result:
    layers = [
        profiled.Layer(name, "Conv2d", (name,), _part(10**6), _part(2 * 10**6)) for name in PARTS
    ]
    sections = {"forward": _part(0), "backward": _part(0), "optimizer.step": _part(0)}
    return profiled.Result(3, 0.0123, layers, sections)


def _timeline() -> list[dict[str, Any]]:
    spans = [("step 2", "step", 0.0, 0.0121), ("forward", "section", 0.0001, 0.0042)]
    spans += [("backward", "section", 0.0045, 0.0071)]
    spans += [(name, "forward", 0.0002 + 0.001 * i, 0.0009) for i, name in enumerate(PARTS)]
    spans += [
        (name, "backward", 0.0046 + 0.002 * i, 0.0018) for i, name in enumerate(reversed(PARTS))
    ]
    return [
        {"name": name, "category": kind, "start": start, "seconds": seconds}
        for name, kind, start, seconds in spans
    ]


def _points() -> list[dict[str, Any]]:
    work = {"depthwise": (10**6, 10**6), "gemm": (10**8, 10**6), "prelu": (0, 10**7)}
    return [
        place(name, "simd", "28x28x64", work[name.partition(".")[0]], _other(), PEAKS).as_dict()
        for name in OPS
    ]


_FOUND = {
    "settings": {"size": "stages", "batch": 8, "few": 8, "quick": True},
    "peaks": peaks.as_json(PEAKS),
    "separable": _separable().as_dict(),
    "ladders": [_ladder(name).as_dict() for name in OPS],
    "points": _points(),
    "step": {"model": "quicknet", "input_shape": [32, 32, 3], "batch": 8, **_step().as_dict()},
    "timeline": _timeline(),
}


def sample() -> dict[str, Any]:
    """Return a file's content, as it is read back: the same numbers each time."""
    found: dict[str, Any] = json.loads(json.dumps(results.envelope("report", _FOUND)))
    return copy.deepcopy(found)
