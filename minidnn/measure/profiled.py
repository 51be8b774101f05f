"""A profile's numbers: what `minidnn.measure.profile` found, by layer and by section."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from minidnn.measure.tables import Table

FORWARD, BACKWARD = WAYS = ("forward", "backward")


class Pass(NamedTuple):
    """One direction of a layer, or a section, in one step: medians over the steps.

    Attributes
    ----------
    seconds : float
    calls : int
        Functions run: an op forward counts one, a backward closure one.
    macs : int
        Multiply-accumulates. Backward, each needed gradient of a product counts as many as
        the product; a first layer, whose input needs none, costs less than twice its forward.
    moved_bytes : int
        Every array that a call is given, has saved or returns, once. Views move nothing.
    takes, taken_bytes, fresh_bytes : int
        Blocks taken from the arena (`minidnn.kernels.memory`; arrays of 1 MiB and more), their
        bytes, and how many of those were new memory instead of reused.
    """

    seconds: float = 0.0
    calls: int = 0
    macs: int = 0
    moved_bytes: int = 0
    takes: int = 0
    taken_bytes: int = 0
    fresh_bytes: int = 0

    @property
    def gflops(self) -> float:
        """10^9 floating-point operations per second, two per multiply-accumulate."""
        return 2e-9 * self.macs / self.seconds if self.seconds else 0.0

    @property
    def gbps(self) -> float:
        """10^9 bytes moved per second."""
        return 1e-9 * self.moved_bytes / self.seconds if self.seconds else 0.0

    def as_dict(self) -> dict[str, Any]:
        """Return the numbers, for JSON."""
        return {**self._asdict(), "gflops": self.gflops, "gbps": self.gbps}


@dataclass(frozen=True)
class Layer:
    """A layer, several that `minidnn.fuse` has joined, or an op outside of any.

    Attributes
    ----------
    label : str
        Such as ``features.stem.norm+act+s1_1.conv.depthwise+pointwise``.
    kind : str
        The layer's class, or the op's name.
    paths : tuple of str
        Dotted paths in the model of the layers in it.
    forward, backward : Pass
    """

    label: str
    kind: str
    paths: tuple[str, ...]
    forward: Pass
    backward: Pass

    @property
    def seconds(self) -> float:
        """Both directions."""
        return self.forward.seconds + self.backward.seconds


@dataclass(frozen=True)
class Result:
    """A profile's numbers; layers stand in the order of their first call.

    Attributes
    ----------
    steps : int
    step_seconds : float
        Median of whole steps.
    layers : list of Layer
    sections : dict of str to Pass
        What `Profile.section` named, the layers inside taken off.
    """

    steps: int
    step_seconds: float
    layers: list[Layer]
    sections: dict[str, Pass]

    @property
    def layers_seconds(self) -> float:
        """Sum over the layers."""
        return sum(layer.seconds for layer in self.layers)

    @property
    def sections_seconds(self) -> float:
        """Sum over the sections."""
        return sum(part.seconds for part in self.sections.values())

    @property
    def unaccounted_seconds(self) -> float:
        """What is left of the step; medians do not add up exactly, so it may be below zero."""
        return self.step_seconds - self.layers_seconds - self.sections_seconds

    @property
    def macs(self) -> int:
        """Multiply-accumulates of a step."""
        return sum(layer.forward.macs + layer.backward.macs for layer in self.layers)

    def as_dict(self) -> dict[str, Any]:
        """Return plain numbers, strings, lists and dicts, for JSON."""
        layers = [
            {
                "label": layer.label,
                "kind": layer.kind,
                "paths": list(layer.paths),
                "seconds": layer.seconds,
                "share": self._share(layer.seconds),
                FORWARD: layer.forward.as_dict(),
                BACKWARD: layer.backward.as_dict(),
            }
            for layer in self.layers
        ]
        return {
            "steps": self.steps,
            "step_seconds": self.step_seconds,
            "layers_seconds": self.layers_seconds,
            "sections_seconds": self.sections_seconds,
            "unaccounted_seconds": self.unaccounted_seconds,
            "macs": self.macs,
            "layers": layers,
            "sections": {name: part.as_dict() for name, part in self.sections.items()},
        }

    def _share(self, seconds: float) -> float:
        return seconds / self.step_seconds if self.step_seconds else 0.0

    def table(self, title: str = "by layer, medians per step") -> Table:
        """Return the layers, then the sections; columns without a number are left empty."""
        rates = ("fwd GF/s", "bwd GF/s", "fwd GB/s", "bwd GB/s")
        columns = ("layer", "fwd ms", "bwd ms", "share", *rates, "arena MB", "takes", "new MB")
        rows = []
        for layer in self.layers:
            both = layer.forward, layer.backward
            rows.append(
                [
                    layer.label,
                    *(_number(1e3 * part.seconds, 2) for part in both),
                    f"{100 * self._share(layer.seconds):.1f} %",
                    *(_number(part.gflops, 1) for part in both),
                    *(_number(part.gbps, 1) for part in both),
                    *_memory(both),
                ]
            )
        for name, part in self.sections.items():
            time_, share = _number(1e3 * part.seconds, 2), self._share(part.seconds)
            place = ["", time_] if name == BACKWARD else [time_, ""]
            label = f"({name}, outside of layers)" if name in WAYS else f"({name})"
            rows.append([label, *place, f"{100 * share:.1f} %", *[""] * 4, *_memory((part,))])
        return Table(title, columns, rows)

    def totals(self) -> str:
        """Return how the parts add up to the step, a line each.

        Each is a median of its own, so on a busy machine the parts may exceed the whole.
        """
        parts = (
            ("layers", self.layers_seconds),
            ("outside of layers", self.sections_seconds),
            ("unaccounted", self.unaccounted_seconds),
            ("whole step", self.step_seconds),
        )
        return "\n".join(
            f"{name:18}{1e3 * seconds:10.2f} ms {100 * self._share(seconds):6.1f} %"
            for name, seconds in parts
        )


def _number(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if value else ""


def _memory(parts: Sequence[Pass]) -> list[str]:
    takes = sum(part.takes for part in parts)
    taken, fresh = (sum(part.taken_bytes for part in parts), sum(p.fresh_bytes for p in parts))
    return [_number(taken / 1e6, 1), str(takes or ""), _number(fresh / 1e6, 1)]
