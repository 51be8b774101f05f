"""A program: what a model computes at inference, as steps over values."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minidnn.tensor import Array, Op

Shape = tuple[int, ...]
TINY = 255 * float(np.finfo(np.float32).tiny)
Size3 = tuple[int, int, int]


def as_map(shape: Shape) -> Size3:
    """Return (H, W, C) of one image's value; what is no map is one pixel."""
    if len(shape) == 3:
        return shape[0], shape[1], shape[2]
    return 1, 1, math.prod(shape)


@dataclass(frozen=True)
class Codes:
    """How bytes stand for numbers: ``(code - zero) * scale`` (docs/int8.md).

    Attributes
    ----------
    scale : float
        Positive, a float32.
    zero : int
        0 to 255.
    """

    scale: float
    zero: int

    @classmethod
    def over(cls, low: float, high: float) -> Codes:
        """Return codes for a range, widened where 0 is not in it."""
        low, high = min(low, 0.0), max(high, 0.0)
        scale = float(np.float32((high - low) / 255)) if high - low > TINY else 1.0
        return cls(scale, int(np.clip(np.rint(-low / scale), 0, 255)))

    @property
    def low(self) -> float:
        """The least number there is a code for."""
        return -self.zero * self.scale

    @property
    def high(self) -> float:
        """The greatest number there is a code for."""
        return (255 - self.zero) * self.scale


@dataclass
class Step:
    """One step; geometry is that of one image.

    Attributes
    ----------
    kind : str
        ``"convolve"``, ``"depthwise"``, ``"scale"``, ``"add"``, ``"copy"``, ``"largest"``,
        ``"average"``: the loops of `minidnn.kernels.plan.steps`. ``"op"``: an op's own kernel.
    inputs : list of int or None
        Numbers of values; an op's constants are in `arrays`.
    output : int
    shape, out_shape : (H, W, C)
        Of the input and of what is computed, before `pool`.
    labels : list of str
        Dotted paths of the layers in it.
    arrays : dict
        Folded weights: ``matrix`` (K, N), or (groups, K, N), ``taps`` (KH, KW, C), ``factor``,
        ``bias``, ``slope`` and ``shares``, where there are any. On codes ``matrix`` and
        ``taps`` are int8, ``bias`` int32, and sums are multiplied by ``scale``; where both
        are there, the filter has its own ``taps_bias``, ``taps_scale``, ``taps_slope``.
    kernel, stride, dilation : (int, int)
    start : (int, int)
        Zeros above and left of the map; of a copy, the place in the larger map.
    pool : int
        Size of the max-pool windows whose largest output alone is kept.
    to, total : int
        First channel that is written of how many; 0 stands for all.
    repeat : int
        How often a copy writes each channel.
    zeros : (int, int, int)
        Zero points of the input, of the filter's output or the other input, of the output.
    op, settings : Op, dict
        Of an ``"op"``.
    macs : int
    """

    kind: str
    inputs: list[int | None]
    output: int
    shape: Size3
    out_shape: Size3
    labels: list[str]
    arrays: dict[str, Array] = field(default_factory=dict)
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    start: tuple[int, int] = (0, 0)
    pool: int = 1
    to: int = 0
    total: int = 0
    repeat: int = 1
    zeros: tuple[int, int, int] = (0, 0, 0)
    op: Op | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    macs: int = 0

    @property
    def groups(self) -> int:
        """Parts that channels are convolved in."""
        matrix = self.arrays.get("matrix")
        return 1 if matrix is None or matrix.ndim == 2 else len(matrix)

    @property
    def channels(self) -> int:
        """Channels of the output value."""
        return self.total or self.out_shape[2]

    @property
    def is_pointwise(self) -> bool:
        """Whether it is a plain matrix product over pixels."""
        return (
            self.kind in ("convolve", "int8_convolve")
            and "taps" not in self.arrays
            and (self.kernel, self.stride, self.start) == ((1, 1), (1, 1), (0, 0))
            and self.groups == 1
            and self.shape[:2] == self.out_shape[:2]
        )


@dataclass
class Program:
    """Steps in the order in which they run.

    Attributes
    ----------
    sizes : list of int
        Numbers per image of each value.
    steps : list of Step
    input : int
    input_shape : tuple of int
        Of one image.
    outputs : list of (int, tuple of int)
        Values and shapes per image.
    codes : dict of int to Codes
        Values that are bytes; all others are float32.
    """

    sizes: list[int] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    input: int = 0
    input_shape: Shape = ()
    outputs: list[tuple[int, Shape]] = field(default_factory=list)
    codes: dict[int, Codes] = field(default_factory=dict)

    def new_value(self, shape: Shape) -> int:
        """Add a value of that shape per image; return its number."""
        self.sizes.append(math.prod(shape))
        return len(self.sizes) - 1

    def item(self, value: int | None) -> int:
        """Return the bytes of a number of a value."""
        return 1 if value in self.codes else 4

    def readers(self) -> dict[int, list[Step]]:
        """Return the steps that read each value."""
        found: dict[int, list[Step]] = {}
        for step in self.steps:
            for value in step.inputs:
                if value is not None:
                    found.setdefault(value, []).append(step)
        return found

    def only_reader(self, value: int, readers: dict[int, list[Step]]) -> Step | None:
        """Return the one step that reads a value that is no output, if there is one."""
        found = readers.get(value, [])
        seen = any(value == output for output, _ in self.outputs)
        return found[0] if len(found) == 1 and not seen else None
