"""QuickNet (Ghosh 2017, arXiv:1701.02291, not Larq's net of that name): small, separable, PReLU.

The paper fixes the parts: a 5x5 stem without padding (section 3.6), then 3x3 separable
convolutions whose filters double every N layers (3.7), PReLU (3.4), batch normalisation, global
average pooling before softmax regression (3.5), dropout 0.5 (4), and fewer than 3,560,000
parameters (3.1). It does not give N or the widths. The default here is the reconstruction with
3,557,322 parameters whose widths are all powers of two and double from the stem on; `VARIANTS`
holds two rivals that fit the same text.

::

    stem     5x5 conv 64, no padding                 32x32 -> 28x28
    stage 1  3 x (separable 3x3, 128), max-pool 2x2  28x28 -> 14x14
    stage 2  3 x (separable 3x3, 256), max-pool 2x2  14x14 -> 7x7
    stage 3  3 x (separable 3x3, 512), max-pool 2x2  7x7 -> 3x3
    stage 4  3 x (separable 3x3, 1024)               3x3
    head     global average pool, dropout, linear

After the stem and every separable convolution come batch normalisation and PReLU; nothing
stands between the depthwise and the pointwise half.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from minidnn import init
from minidnn.errors import ConfigError
from minidnn.kernels.ladder import unknown
from minidnn.layers.activation import LeakyReLU, PReLU, ReLU
from minidnn.layers.conv import Conv2d, DepthwiseConv2d, PointwiseConv2d, SeparableConv2d
from minidnn.layers.dropout import Dropout
from minidnn.layers.linear import Linear
from minidnn.layers.norm import BatchNorm2d
from minidnn.layers.pool import GlobalAvgPool2d, MaxPool2d
from minidnn.module import Module, Sequential
from minidnn.tensor import Tensor

STEM = 64
STAGES = (128, 256, 512, 1024)
BLOCKS = 3

VARIANTS: dict[str, dict[str, Any]] = {
    # Keras's default of biases everywhere; 32 is the width of Xception's first convolution.
    "quicknet_b": {"stem": 32, "conv_bias": True},
    # Before December 2016 Keras had one PReLU slope per element only: another width then fits.
    "quicknet_elem": {"stem": 32, "stages": (128, 256, 512), "blocks": 7, "slopes": "element"},
}

ACTIVATIONS = ("prelu", "leaky", "relu")
SLOPES = ("channel", "layer", "element")
WEIGHTS = ("he", "glorot")


class QuickNet(Module):
    """QuickNet, in its default reconstruction unless told otherwise.

    Parameters
    ----------
    num_classes : int
    input_shape : (H, W, C)
        Any size that leaves a pixel after the stem and the pools; the maps' sizes matter to
        slopes per element only.
    stem : int
        Filters of the 5x5 stem.
    stages : sequence of int
        Filters per stage; a 2x2 max-pool stands between stages.
    blocks : int
        Separable convolutions per stage, the paper's N.
    activation : {"prelu", "leaky", "relu"}
    slopes : {"channel", "layer", "element"}
        What shares one PReLU slope.
    init_slope : float
        Where PReLU slopes start (0.25 in He et al. 2015, 0 in Keras), or the leaky slope.
    conv_bias : bool
        A bias after the stem and after every separable convolution.
    dropout : float
        Before the linear layer.
    dropout_after_stage : float
        After every stage, as in Darknet's CIFAR network; 0 for none.
    bn_eps, bn_momentum : float
        PyTorch's meaning and defaults; the paper's Keras used eps 1e-3 and a momentum that is
        0.01 in PyTorch's sense.
    weights : {"he", "glorot"}
        How weights start: as each layer's own docstring says (He et al. 2015 and relatives), or
        Glorot & Bengio's uniform everywhere, the paper's Keras default.
    rng : numpy.random.Generator, optional
        Draws initial weights and dropout masks.

    Shapes
    ------
    (N, H, W, C) -> logits (N, num_classes)

    Raises
    ------
    ConfigError
        If an argument is out of range, or the input too small for this many pools.
    """

    def __init__(
        self,
        num_classes: int = 10,
        input_shape: tuple[int, int, int] = (32, 32, 3),
        *,
        stem: int = STEM,
        stages: Sequence[int] = STAGES,
        blocks: int = BLOCKS,
        activation: str = "prelu",
        slopes: str = "channel",
        init_slope: float = 0.25,
        conv_bias: bool = False,
        dropout: float = 0.5,
        dropout_after_stage: float = 0.0,
        bn_eps: float = 1e-5,
        bn_momentum: float = 0.1,
        weights: str = "he",
        rng: np.random.Generator | None = None,
    ) -> None:
        super().__init__()
        _check(num_classes, stem, stages, blocks)
        _check_names(activation, slopes, weights)
        rng = rng or init.default_rng()

        def normed(conv: Module, filters: int) -> Sequential:
            """Convolution, batch normalisation, activation; maps are `height` x `width` here."""
            shape = {"channel": (filters,), "layer": (1,), "element": (height, width, filters)}
            act: Module
            if activation == "prelu":
                act = PReLU(shape[slopes], init_slope)
            else:
                act = LeakyReLU(init_slope) if activation == "leaky" else ReLU()
            norm = BatchNorm2d(filters, eps=bn_eps, momentum=bn_momentum)
            return Sequential({"conv": conv, "norm": norm, "act": act})

        if len(input_shape) != 3:
            raise ConfigError(f"QuickNet: input_shape: expected (H, W, C), got {input_shape}")
        height, width, channels = input_shape
        height, width = height - 4, width - 4
        _check_map(height, width, input_shape)
        parts: dict[str, Module] = {
            "stem": normed(Conv2d(channels, stem, 5, bias=conv_bias, rng=rng), stem)
        }
        channels = stem
        for stage, filters in enumerate(stages, 1):
            for block in range(1, blocks + 1):
                conv = self.convolution(channels, filters, conv_bias, rng)
                parts[f"s{stage}_{block}"] = normed(conv, filters)
                channels = filters
            if dropout_after_stage:
                parts[f"dropout{stage}"] = Dropout(dropout_after_stage, rng=rng)
            if stage < len(stages):
                parts[f"pool{stage}"] = MaxPool2d(2)
                height, width = height // 2, width // 2
                _check_map(height, width, input_shape)
        self.features = Sequential(parts)
        self.head = Sequential(
            {
                "pool": GlobalAvgPool2d(),
                "dropout": Dropout(dropout, rng=rng),
                "linear": Linear(channels, num_classes, rng=rng),
            }
        )
        if weights == "glorot":
            start_glorot(self, rng)

    def convolution(
        self, channels: int, filters: int, bias: bool, rng: np.random.Generator
    ) -> Module:
        """Return the 3x3 convolution of one block; the one thing `PlainCNN` changes."""
        return SeparableConv2d(channels, filters, 3, bias=bias, rng=rng)

    def forward(self, x: Tensor) -> Tensor:
        """(N, H, W, C) -> logits (N, num_classes)."""
        logits: Tensor = self.head(self.features(x))
        return logits


def _check(num_classes: int, stem: int, stages: Sequence[int], blocks: int) -> None:
    counts = {"num_classes": num_classes, "stem": stem, "blocks": blocks, "stages": len(stages)}
    counts |= {f"stages[{i}]": filters for i, filters in enumerate(stages)}
    for name, value in counts.items():
        if value < 1:
            raise ConfigError(f"QuickNet: {name}: expected at least 1, got {value}")


def _check_names(activation: str, slopes: str, weights: str) -> None:
    for what, name, known in (
        ("activation", activation, ACTIVATIONS),
        ("sharing of slopes", slopes, SLOPES),
        ("initial weights", weights, WEIGHTS),
    ):
        if name not in known:
            raise ConfigError("QuickNet: " + unknown(what, name, known))


def _check_map(height: int, width: int, input_shape: Sequence[int]) -> None:
    if height < 1 or width < 1:
        raise ConfigError(
            f"QuickNet: input_shape: {tuple(input_shape)} leaves no pixel after the 5x5 stem and "
            "the 2x2 pools; expected a larger picture, or fewer stages"
        )


def start_glorot(model: Module, rng: np.random.Generator) -> None:
    """Draw all kernels and matrices from Glorot's uniform distribution, with Keras's fans.

    Keras sees a depthwise kernel as (KH, KW, C, 1): C counts as inputs of every output.
    """
    for module in model.modules():
        if isinstance(module, Conv2d | DepthwiseConv2d | PointwiseConv2d | Linear):
            p = module.weight
            into, out = (p.shape[-1], 1) if p.ndim == 3 else p.shape[-2:]
            window = math.prod(p.shape[:2]) if p.ndim > 2 else 1
            fans = {"fan_in": window * into, "fan_out": window * out}
            p.data[...] = init.glorot_uniform(p.shape, rng, **fans)


def quicknet_b(*args: Any, **arguments: Any) -> QuickNet:
    """QuickNet with stem 32 and biases: 3,556,234 parameters."""
    return QuickNet(*args, **{**VARIANTS["quicknet_b"], **arguments})


def quicknet_elem(*args: Any, **arguments: Any) -> QuickNet:
    """QuickNet with three stages of seven and a slope per element: 3,558,986 parameters."""
    return QuickNet(*args, **{**VARIANTS["quicknet_elem"], **arguments})
