"""Linear and Flatten."""

from __future__ import annotations

import math

import numpy as np

from minidnn import init
from minidnn.errors import ShapeError
from minidnn.kernels import bias as bias_kernel
from minidnn.kernels import linear as linear_kernel
from minidnn.layers.settings import positive
from minidnn.module import Module, Parameter
from minidnn.tensor import Array, Backward, Tensor, op


@op(macs=lambda y, x, w, bias=None: y.size * w.shape[0])
def linear(x: Array, w: Array, bias: Array | None) -> tuple[Array, Backward]:
    """x @ w + bias; the loops are in `minidnn.kernels.linear` and `gemm`."""
    y = linear_kernel.forward(x, w)
    if bias is not None:
        bias_kernel.forward(y, bias, out=y)
    return y, (
        lambda dy: linear_kernel.backward_input(dy, w),
        lambda dy: linear_kernel.backward_weight(dy, x),
        lambda dy: bias_kernel.backward(dy),
    )


class Linear(Module):
    """Dense layer y = x @ weight + bias.

    Parameters
    ----------
    in_features, out_features : int
    bias : bool
    rng : numpy.random.Generator, optional
        Draws the weights from N(0, 0.01^2); biases start at zero.

    Attributes
    ----------
    weight : Parameter of shape (in_features, out_features)
        The transpose of PyTorch's.
    bias : Parameter of shape (out_features,), or None

    Shapes
    ------
    (..., in_features) -> (..., out_features)

    Raises
    ------
    ConfigError
        For sizes below 1.
    ShapeError
        In the call, for another number of features or an empty batch.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        rng: np.random.Generator | None = None,
    ) -> None:
        super().__init__()
        positive(in_features=in_features, out_features=out_features)
        self.in_features, self.out_features = in_features, out_features
        shape = (in_features, out_features)
        self.weight = Parameter(init.normal(shape, rng or init.default_rng(), std=0.01))
        self.bias = Parameter(np.zeros(out_features, np.float32), decay=False) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """Apply the matrix to the last axis of x."""
        if x.ndim < 2 or x.shape[-1] != self.in_features:
            raise ShapeError(f"expected shape (..., {self.in_features}), got {x.shape}")
        return linear(x, self.weight, self.bias)

    def extra_repr(self) -> str:
        """Return the settings as PyTorch prints them."""
        return f"{self.in_features}, {self.out_features}, bias={self.bias is not None}"


class Flatten(Module):
    """All axes but the first in one: (N, H, W, C) -> (N, H * W * C).

    Channels vary fastest; in PyTorch, whose images are NCHW, they vary slowest, so a Linear
    after it has its rows in another order there.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Flatten (N, ...) to (N, features)."""
        if x.ndim < 2:
            raise ShapeError(f"expected shape (N, ...) with at least two axes, got {x.shape}")
        return x.reshape(x.shape[0], math.prod(x.shape[1:]))
