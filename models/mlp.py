"""A multilayer perceptron (Rumelhart, Hinton & Williams 1986): the smallest net worth training."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from minidnn import init
from minidnn.layers.activation import ReLU
from minidnn.layers.linear import Flatten, Linear
from minidnn.module import Module, Sequential
from minidnn.tensor import Tensor

HIDDEN = (64,)


class MLP(Module):
    """Linear layers with ReLU between them.

    Parameters
    ----------
    num_classes : int
    input_shape : tuple of int
        Shape of one example, such as (32, 32, 3).
    hidden : sequence of int
        Width of each hidden layer; () makes a linear classifier.
    rng : numpy.random.Generator, optional

    Shapes
    ------
    (N, *input_shape) -> logits (N, num_classes)
    """

    def __init__(
        self,
        num_classes: int = 10,
        input_shape: Sequence[int] = (32, 32, 3),
        *,
        hidden: Sequence[int] = HIDDEN,
        rng: np.random.Generator | None = None,
    ) -> None:
        super().__init__()
        rng = rng or init.default_rng()
        parts: list[Module] = [Flatten()]
        features = math.prod(input_shape)
        for width in hidden:
            layer = Linear(features, width, rng=rng)
            layer.weight.data[...] = init.kaiming_normal(layer.weight.shape, rng, fan_in=features)
            parts += [layer, ReLU()]
            features = width
        self.layers = Sequential(*parts, Linear(features, num_classes, rng=rng))

    def forward(self, x: Tensor) -> Tensor:
        """(N, *input_shape) -> logits (N, num_classes)."""
        logits: Tensor = self.layers(x)
        return logits
