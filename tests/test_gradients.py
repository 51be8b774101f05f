"""Every differentiable layer and loss against finite differences, in float64.

The ops of `minidnn.arithmetic` are checked the same way in `test_tensor.py`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from minidnn import concat, losses
from minidnn.gradcheck import check_gradients
from minidnn.layers.activation import LeakyReLU, PReLU, ReLU
from minidnn.layers.conv import Conv2d, DepthwiseConv2d, PointwiseConv2d, SeparableConv2d
from minidnn.layers.dropout import Dropout
from minidnn.layers.linear import Flatten, Linear
from minidnn.layers.norm import BatchNorm1d, BatchNorm2d
from minidnn.layers.pool import AvgPool2d, GlobalAvgPool2d, MaxPool2d
from minidnn.module import Module, Sequential
from minidnn.tensor import Array, Tensor

MAP = (3, 6, 5, 4)

LAYERS: dict[str, tuple[Callable[[], Module], tuple[int, ...]]] = {
    "conv_valid": (lambda: Conv2d(4, 3, 3), MAP),
    "conv_stride_pad": (lambda: Conv2d(4, 5, (3, 2), stride=(2, 1), padding=(1, 0)), MAP),
    "conv_dilated": (lambda: Conv2d(4, 2, 2, dilation=2, bias=False), MAP),
    "conv_groups": (lambda: Conv2d(4, 6, 3, padding="same", stride=2, groups=2), MAP),
    "conv_1x1": (lambda: Conv2d(4, 7, 1), MAP),
    "depthwise": (lambda: DepthwiseConv2d(4), MAP),
    "depthwise_stride_bias": (lambda: DepthwiseConv2d(4, 5, stride=2, bias=True), MAP),
    "depthwise_multiplier": (lambda: DepthwiseConv2d(4, padding=1, multiplier=2), MAP),
    "pointwise": (lambda: PointwiseConv2d(4, 17), MAP),
    "pointwise_bias": (lambda: PointwiseConv2d(4, 1, bias=True), MAP),
    "separable": (lambda: SeparableConv2d(4, 7, bias=True), MAP),
    "linear": (lambda: Linear(6, 5), (3, 6)),
    "linear_no_bias": (lambda: Linear(1, 17, bias=False), (1, 1)),
    "flatten": (lambda: Sequential(Flatten(), Linear(120, 3)), MAP),
    "bn2d": (lambda: BatchNorm2d(4), MAP),
    "bn2d_no_affine": (lambda: BatchNorm2d(4, affine=False), MAP),
    "bn1d": (lambda: BatchNorm1d(5, eps=1e-3), (7, 5)),
    "bn2d_eval": (lambda: BatchNorm2d(4).eval(), MAP),
    "bn1d_eval": (lambda: BatchNorm1d(5).eval(), (7, 5)),
    "prelu_channel": (lambda: PReLU(4), MAP),
    "prelu_layer": (lambda: PReLU(1), MAP),
    "prelu_element": (lambda: PReLU(MAP[1:]), MAP),
    "relu": (ReLU, MAP),
    "leaky": (lambda: LeakyReLU(0.1), MAP),
    "max_pool": (lambda: MaxPool2d(2), MAP),
    "max_pool_overlapping": (lambda: MaxPool2d(3, 2, padding=1), MAP),
    "max_pool_ceil": (lambda: MaxPool2d(3, 2, ceil_mode=True), MAP),
    "avg_pool": (lambda: AvgPool2d(2), MAP),
    "avg_pool_pad": (lambda: AvgPool2d(3, 2, padding=1, count_include_pad=False), MAP),
    "avg_pool_ceil": (lambda: AvgPool2d(2, 2, ceil_mode=True), MAP),
    "global_avg_pool": (GlobalAvgPool2d, MAP),
    "dropout": (lambda: Dropout(0.4), MAP),
    "dropout_eval": (lambda: Dropout(0.4).eval(), MAP),
}


def _scrambled(module: Module, rng: np.random.Generator) -> Module:
    """Make a float64 module whose parameters and statistics are neither zeros nor ones."""
    module.astype(np.float64)
    for _, p in module.named_parameters():
        p.data[...] = rng.standard_normal(p.shape)
    for name, buffer in module.named_buffers():
        if buffer.data.dtype.kind == "f":
            buffer.data[...] = rng.standard_normal(buffer.data.shape)
            if name.endswith("var"):
                buffer.data[...] = np.abs(buffer.data) + 0.5
    return module


@pytest.mark.parametrize("name", LAYERS)
def test_layer_agrees_with_finite_differences(name: str) -> None:
    build, shape = LAYERS[name]
    rng = np.random.default_rng(0)
    check_gradients(_scrambled(build(), rng), rng.standard_normal(shape))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_agrees_with_finite_differences(smoothing: float) -> None:
    rng = np.random.default_rng(0)
    labels = np.array([0, 4, 2, 2, 1])
    check_gradients(
        lambda x: losses.cross_entropy(x, labels, label_smoothing=smoothing),
        2 * rng.standard_normal((5, 6)),
    )


class _Block(Module):
    """A residual separable block, a concatenation and two exits, all in one."""

    def __init__(self) -> None:
        super().__init__()
        self.body = Sequential(SeparableConv2d(4, 4), BatchNorm2d(4), PReLU(4))
        self.side = Sequential(Conv2d(4, 3, 3, padding="same"), LeakyReLU(0.2))
        self.early = Sequential(GlobalAvgPool2d(), Linear(4, 2))
        self.late = Sequential(MaxPool2d(2), Dropout(0.3), Flatten(), Linear(3 * 2 * 7, 2))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.body(x) + x
        return self.early(y), self.late(concat([y, self.side(y)]))


def test_a_network_of_all_sorts_agrees_with_finite_differences() -> None:
    rng = np.random.default_rng(0)
    x: Array = rng.standard_normal(MAP)
    check_gradients(_scrambled(_Block(), rng), x)
