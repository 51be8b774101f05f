"""What the report measures: a part of what every measuring command does, within minutes."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from typing import Any

import numpy as np

from minidnn.errors import InputError
from minidnn.kernels.ladder import load_all
from minidnn.measure import ladders, roofline, separable_report
from minidnn.measure.limits import check_memory, check_time
from minidnn.measure.peaks import Peaks, as_json, known_peaks
from minidnn.measure.rivals import SMALL
from minidnn.measure.shapes import CLASSES, images_of, shapes_of
from minidnn.measure.steps import needed_bytes, profile_training
from minidnn.measure.trace import Trace
from minidnn.models import build

BATCH, QUICK_BATCH = 32, 8
FEW = 8  # images at most that single kernels see
STEPS, QUICK_STEPS = 7, 3
STEP_LIMIT = 60.0  # seconds of training steps
# Seconds a rung may take; slower ones are estimated.
RUNG_LIMIT, QUICK_RUNG_LIMIT = 2.0, 0.5
LADDERS = (
    "depthwise.forward",
    "depthwise.backward",
    "depthwise.backward_input",
    "depthwise.backward_weight",
    "pointwise.forward",
    "pointwise.backward_input",
    "pointwise.backward_weight",
    "conv2d.forward",
    "conv2d.backward_input",
    "conv2d.backward_weight",
    "separable.forward",
    "prelu.forward",
    "prelu.backward",
    "gemm.nn",
    "int8_depthwise.forward",
    "int8_pointwise.forward",
)
MODEL = "quicknet"

Tell = Callable[[str], object]


def collect(
    *, size: str = "stages", batch: int | None = None, quick: bool = False, tell: Tell
) -> dict[str, Any]:
    """Measure everything the page shows.

    Parameters
    ----------
    size : {"classroom", "stages", "full"}
        Which of QuickNet's shapes.
    batch : int, optional
        Images; 32, or 8 if quick. Single kernels see 8 at most.
    quick : bool
        Fewer images, shapes and turns.
    tell : callable
        Told what is measured next.

    Returns
    -------
    dict
        JSON's types only; `stored.report` reads it.

    Raises
    ------
    ConfigError
        If the size is unknown or the batch below 1.
    InputError
        If memory or time would not do.
    """
    shapes_of(size)  # refuses unknown ones before anything is measured
    batch = images_of(batch, QUICK_BATCH if quick else BATCH)
    tell("this machine's peaks")
    peaks = known_peaks()
    found = separable_report.profile(peaks, size=size, batch=batch, quick=quick, tell=tell)
    few = min(batch, FEW)
    return {
        "settings": {"size": size, "batch": batch, "few": few, "quick": quick},
        "peaks": as_json(peaks),
        "separable": found.as_dict(),
        "ladders": _ladders(peaks, size, few, quick, tell),
        "points": _points(peaks, size, few, quick, tell),
        **_step(size, batch, quick, tell),
    }


def ladder_cases(ladder: str, size: str, quick: bool) -> list[ladders.Case]:
    """Return a ladder at its largest and its smallest map; quick, at one in between."""
    if size == "classroom":
        return ladders.cases(ladder, size=size)[-1:]
    if quick:
        return ladders.cases(ladder)
    found = ladders.cases(ladder, size=size)
    maps = [case for case in found if ladders.dimensions(case.label)] or found
    return maps if size == "full" else list(dict.fromkeys([maps[0], maps[-1]]))


def _ladders(peaks: Peaks, size: str, batch: int, quick: bool, tell: Tell) -> list[Any]:
    found = []
    limit = QUICK_RUNG_LIMIT if quick else RUNG_LIMIT
    for name in LADDERS:
        for case in ladder_cases(name, size, quick):
            tell(f"ladder {name} at {case.label}")
            found.append(_ladder(case, peaks, batch, limit).as_dict())
    return found


def _ladder(case: ladders.Case, peaks: Peaks, batch: int, limit: float) -> ladders.Measured:
    try:
        return ladders.measure(case, peaks, batch=batch, limit=limit)
    except InputError:
        # On a busy machine a single call may make every rung look too slow: look once more, with
        # patience, before minutes of other measurements are given up.
        return ladders.measure(case, peaks, batch=batch)


def _points(peaks: Peaks, size: str, batch: int, quick: bool, tell: Tell) -> list[Any]:
    tell("the roofline")
    shapes = "classroom" if size == "classroom" else "stages"
    cases = (
        [case for name in load_all() for case in ladder_cases(name, shapes, quick)]
        if quick
        else roofline.chosen_cases([], None, shapes)
    )
    return [one.as_dict() for one in roofline.measure(cases, peaks, batch=batch)]


# --- one step of training ------------------------------------------------------------------


def _step(size: str, batch: int, quick: bool, tell: Tell) -> dict[str, Any]:
    """Profile training steps of QuickNet, and keep the calls of one."""
    tell(f"a training step of {MODEL}")
    small = size == "classroom"
    shape = (batch, *((10, 10, 3) if small else (32, 32, 3)))
    rng = np.random.default_rng(0)
    arguments = SMALL if small else {}
    model = build(MODEL, num_classes=CLASSES, input_shape=shape[1:], rng=rng, **arguments)
    check_memory(needed_bytes(model, shape, training=True), f"a training step at batch {batch}")
    steps = QUICK_STEPS if quick else STEPS

    def check(seconds: float) -> None:
        check_time(seconds * steps, STEP_LIMIT, f"{steps} training steps at batch {batch}")

    trace = Trace(MODEL)
    result = profile_training(model, shape, classes=CLASSES, steps=steps, trace=trace, check=check)
    about = {"model": MODEL, "input_shape": list(shape[1:]), "batch": batch}
    return {"step": {**about, **result.as_dict()}, "timeline": middle_step(trace)}


def middle_step(trace: Trace) -> list[dict[str, Any]]:
    """Return the calls of the step whose duration is the median, its start at 0, in seconds."""
    events = [e for e in json.loads(trace.text())["traceEvents"] if e["ph"] == "X"]
    steps = [e for e in events if e["cat"] == "step"]
    middle = statistics.median_low(e["dur"] for e in steps)
    start = next(e["ts"] for e in steps if e["dur"] == middle)
    return [
        {
            "name": e["name"],
            "category": e["cat"],
            "start": (e["ts"] - start) / 1e6,
            "seconds": e["dur"] / 1e6,
        }
        for e in events
        if start <= e["ts"] and e["ts"] + e["dur"] <= start + middle
    ]
