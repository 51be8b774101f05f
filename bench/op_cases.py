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

STEM = "conv2d 5x5"
LOSS = "cross-entropy"
NORM_ACT = "batch norm + prelu"
GEMM_BOUND = (STEM, "pointwise", "linear")
OTHERS = ("depthwise", "batch norm", "prelu", NORM_ACT, "max pool 2x2", "global avg pool", LOSS)


class OpCase(NamedTuple):
    """One layer.

    Attributes
    ----------
    kind : str
    size : int
        The input's height and width; 0 for vectors.
    c_in, c_out : int
        Channels.
    times : int
        How many such layers QuickNet has; 0 for kinds of layer that it does not have.
    """

    kind: str
    size: int
    c_in: int
    c_out: int
    times: int = 0

    @property
    def label(self) -> str:
        """Short name for tables."""
        shape = f"{self.size}x{self.size}x{self.c_in}" if self.size else f"{self.c_in}"
        return f"{self.kind} {shape}" + (f"->{self.c_out}" if self.c_out != self.c_in else "")

    @property
    def group(self) -> str:
        """What bounds it: matrix products, or mostly memory; or not one of QuickNet's layers."""
        if self.kind in GEMM_BOUND:
            return "GEMM-bound"
        return "others" if self.kind in OTHERS else "beside"

    def input_shape(self, batch: int) -> tuple[int, ...]:
        """Return the shape of a batch of inputs, channels last."""
        inner = (self.size, self.size) if self.size else ()
        return (batch, *inner, self.c_in)


FIRST = DEPTHWISE[1]  # 28x28x128: the largest map that occurs twice
HEAD = GLOBAL_AVG_POOL.channels

CASES: tuple[OpCase, ...] = (
    OpCase(STEM, IMAGE.size, IMAGE.channels, STEM_CHANNELS, 1),
    *(OpCase("pointwise", *p) for p in POINTWISE),
    OpCase("linear", 0, HEAD, CLASSES, 1),
    *(OpCase("depthwise", m.size, m.channels, m.channels, m.times) for m in DEPTHWISE),
    *(OpCase("batch norm", m.size, m.channels, m.channels, m.times) for m in ACTIVATION),
    *(OpCase("prelu", m.size, m.channels, m.channels, m.times) for m in ACTIVATION),
    *(OpCase(NORM_ACT, m.size, m.channels, m.channels, m.times) for m in ACTIVATION),
    *(OpCase("max pool 2x2", m.size, m.channels, m.channels, m.times) for m in MAX_POOL),
    OpCase("global avg pool", GLOBAL_AVG_POOL.size, HEAD, HEAD, 1),
    OpCase(LOSS, 0, CLASSES, CLASSES, 1),
    OpCase("conv2d 3x3", 14, 128, 256),  # plain_cnn's in place of a separable one
    OpCase("conv2d 3x3 stride 2", 28, 128, 256),
    OpCase("leaky relu", FIRST.size, FIRST.channels, FIRST.channels),
    OpCase("relu", FIRST.size, FIRST.channels, FIRST.channels),
    OpCase("max pool 3x3", FIRST.size, FIRST.channels, FIRST.channels),
    OpCase("avg pool 2x2", FIRST.size, FIRST.channels, FIRST.channels),
    OpCase("dropout", 0, HEAD, HEAD),
)
