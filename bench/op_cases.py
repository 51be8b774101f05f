"""The layers to compare with PyTorch's, at QuickNet's shapes, as data."""

from __future__ import annotations

from typing import NamedTuple

from bench.shapes import (
    ACTIVATION,
    CLASSES,
    DEPTHWISE,
    GLOBAL_AVG_POOL,
    IMAGE,
    MAX_POOL,
    POINTWISE,
    STEM_CHANNELS,
)


class OpCase(NamedTuple):
    """One layer: its kind, the input's height and width (0 for vectors), channels in and out."""

    kind: str
    size: int
    c_in: int
    c_out: int

    @property
    def label(self) -> str:
        """Short name for tables."""
        shape = f"{self.size}x{self.size}x{self.c_in}" if self.size else f"{self.c_in}"
        return f"{self.kind} {shape}" + (f"->{self.c_out}" if self.c_out != self.c_in else "")

    def input_shape(self, batch: int) -> tuple[int, ...]:
        """Return the shape of a batch of inputs, channels last."""
        inner = (self.size, self.size) if self.size else ()
        return (batch, *inner, self.c_in)


FIRST = DEPTHWISE[1]  # 28x28x128: the largest map that occurs twice
HEAD = GLOBAL_AVG_POOL.channels

CASES: tuple[OpCase, ...] = (
    OpCase("conv2d 5x5", IMAGE.size, IMAGE.channels, STEM_CHANNELS),
    OpCase("conv2d 3x3", 14, 128, 256),  # plain_cnn's in place of a separable one
    *(OpCase("depthwise", m.size, m.channels, m.channels) for m in DEPTHWISE),
    *(OpCase("pointwise", p.size, p.c_in, p.c_out) for p in POINTWISE),
    *(OpCase("batch norm", m.size, m.channels, m.channels) for m in ACTIVATION),
    *(OpCase("prelu", m.size, m.channels, m.channels) for m in ACTIVATION),
    OpCase("leaky relu", FIRST.size, FIRST.channels, FIRST.channels),
    OpCase("relu", FIRST.size, FIRST.channels, FIRST.channels),
    *(OpCase("max pool 2x2", m.size, m.channels, m.channels) for m in MAX_POOL),
    OpCase("max pool 3x3", FIRST.size, FIRST.channels, FIRST.channels),
    OpCase("avg pool 2x2", FIRST.size, FIRST.channels, FIRST.channels),
    OpCase("global avg pool", GLOBAL_AVG_POOL.size, HEAD, HEAD),
    OpCase("dropout", 0, HEAD, HEAD),
    OpCase("linear", 0, HEAD, CLASSES),
    OpCase("cross-entropy", 0, CLASSES, CLASSES),
)
