"""A report's measurements, read back from JSON into the classes that the commands use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from minidnn.errors import InputError
from minidnn.measure import ladders, peaks, profiled
from minidnn.measure.ladders import Measured, Row
from minidnn.measure.peaks import Peaks
from minidnn.measure.ratios import Ratio
from minidnn.measure.rivals import MODES, Activation, EndToEnd
from minidnn.measure.roofline import Placed
from minidnn.measure.separable import FASTEST, PASSES, SLOW, Layer, Pass, Times
from minidnn.measure.separable_report import Profile
from minidnn.measure.shapes import Map

LEVELS = (*SLOW, FASTEST)
FACTS = ("date", "cpu", "affinity", "threads", "python", "versions")


class Span(NamedTuple):
    """A call, or a part of a step; seconds from the step's start."""

    name: str
    category: str
    start: float
    seconds: float


class Report(NamedTuple):
    """Everything the page shows.

    Attributes
    ----------
    machine, settings : dict
        See `minidnn.measure.machine.surroundings` and `collect.collect`.
    peaks : Peaks
    separable : Profile
    ladders : list of Measured
    points : list of Placed
    model, batch, step : str, int, profiled.Result
        What was trained, on how many images, and where the time of a step went.
    timeline : list of Span
        The calls of one step.
    """

    machine: dict[str, Any]
    settings: dict[str, Any]
    peaks: Peaks
    separable: Profile
    ladders: list[Measured]
    points: list[Placed]
    model: str
    batch: int
    step: profiled.Result
    timeline: list[Span]


def report(found: Mapping[str, Any], name: str = "report") -> Report:
    """Return what an envelope of `collect.collect` holds.

    Raises
    ------
    InputError
        If something is missing or of another kind, as in a file that was edited.
    """
    try:
        return _report(found)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        text = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise InputError(
            f"{name}: expected what `minidnn report --save` writes, got {text}"
        ) from None


def _report(found: Mapping[str, Any]) -> Report:
    machine_peaks = peaks.from_json(found["peaks"])
    step = found["step"]
    whole = Report(
        machine={fact: found["machine"][fact] for fact in FACTS},
        settings={name: found["settings"][name] for name in ("size", "batch", "few", "quick")},
        peaks=machine_peaks,
        separable=_separable(found["separable"], machine_peaks),
        ladders=[_ladder(one) for one in found["ladders"]],
        points=[Placed(**_only(one, Placed.__dataclass_fields__)) for one in found["points"]],
        model=str(step["model"]),
        batch=int(step["batch"]),
        step=_step(step),
        timeline=[Span(**one) for one in found["timeline"]],
    )
    # Charts are scaled to the largest of each.
    if not (whole.ladders and whole.points and whole.separable.layers and whole.step.layers):
        raise ValueError("an empty part")
    return whole


def _only(found: Mapping[str, Any], names: Any) -> dict[str, Any]:
    """Return some entries: what is computed from others is left out."""
    return {name: found[name] for name in names}


def _separable(found: Mapping[str, Any], machine_peaks: Peaks) -> Profile:
    layers: dict[Layer, Times] = {}
    for one in found["layers"]:
        layer = Layer(**_only(one, Layer._fields))
        layers[layer] = {
            level: {
                name: Pass(**{**both[name], "ratio": Ratio(*both[name]["ratio"])})
                for name in PASSES
            }
            for level, both in _only(one["levels"], LEVELS).items()
        }
    return Profile(
        batch=int(found["batch"]),
        quick=bool(found["quick"]),
        layers=layers,
        activations={
            _map(one["map"]): {
                name: Activation(
                    **{**one[name], "prelu_over_leaky": Ratio(*one[name]["prelu_over_leaky"])}
                )
                for name in PASSES
            }
            for one in found["activations"]
        },
        networks={
            mode: EndToEnd(**{**one, "ratio": Ratio(*one["ratio"])})
            for mode, one in _only(found["networks"], MODES).items()
        },
        peaks=machine_peaks,
    )


def _map(label: str) -> Map:
    size = ladders.dimensions(label)
    if size is None:
        raise ValueError(f"map {label!r}")
    return Map(size.size, size.c_in)


def _ladder(found: Mapping[str, Any]) -> Measured:
    return Measured(**{**found, "rows": [Row(**row) for row in found["rows"]]})


def _step(found: Mapping[str, Any]) -> profiled.Result:
    def passed(numbers: Mapping[str, Any]) -> profiled.Pass:
        return profiled.Pass(**_only(numbers, profiled.Pass._fields))

    return profiled.Result(
        steps=int(found["steps"]),
        step_seconds=float(found["step_seconds"]),
        layers=[
            profiled.Layer(
                str(one["label"]),
                str(one["kind"]),
                tuple(one["paths"]),
                passed(one[profiled.FORWARD]),
                passed(one[profiled.BACKWARD]),
            )
            for one in found["layers"]
        ],
        sections={str(name): passed(one) for name, one in found["sections"].items()},
    )
