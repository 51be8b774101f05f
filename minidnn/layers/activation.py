"""Activations: PReLU, LeakyReLU, ReLU."""

from __future__ import annotations

import numpy as np

from minidnn.kernels import leaky_relu as leaky_relu_kernel
from minidnn.kernels import prelu as prelu_kernel
from minidnn.kernels import relu as relu_kernel
from minidnn.module import Module, Parameter
from minidnn.tensor import Array, Backward, Tensor, op


@op
def prelu(x: Array, slope: Array) -> tuple[Array, Backward]:
    """x where x > 0, else slope * x; the loops are in `minidnn.kernels.prelu`."""
    y = prelu_kernel.forward(x, slope)

    def backward(dy: Array) -> tuple[Array, Array]:
        return prelu_kernel.backward(dy, x, slope)

    return y, backward


class PReLU(Module):
    """Parametric ReLU (He et al. 2015, eq. 1).

    Parameters
    ----------
    num_parameters : int or tuple of int
        Channels for one slope per channel, 1 for one per layer, or (H, W, C) for one per
        element (the only kind Keras had before 1.2).
    init : float
        Initial slope.

    Shapes
    ------
    (..., C) -> (..., C)
    """

    def __init__(self, num_parameters: int | tuple[int, ...] = 1, init: float = 0.25) -> None:
        super().__init__()
        self.weight = Parameter(np.full(num_parameters, init, np.float32), decay=False)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the activation to an array of shape (..., C)."""
        return prelu(x, self.weight)

    def extra_repr(self) -> str:
        """Return the slope's shape as declared."""
        shape = self.weight.shape
        return f"num_parameters={shape[0] if len(shape) == 1 else shape}"


@op
def relu(x: Array) -> tuple[Array, Backward]:
    """x where x > 0, else 0; the loops are in `minidnn.kernels.relu`."""
    y = relu_kernel.forward(x)
    # y is positive where x is, and the next layer keeps it anyway: x may go.
    return y, lambda dy: relu_kernel.backward(dy, y)


class ReLU(Module):
    """Rectifier: negative values become zero (Nair and Hinton 2010).

    Shapes
    ------
    any -> the same
    """

    def forward(self, x: Tensor) -> Tensor:
        """Apply the activation to an array of any shape."""
        return relu(x)


@op
def leaky_relu(x: Array, *, slope: float) -> tuple[Array, Backward]:
    """x where x > 0, else slope * x; the loops are in `minidnn.kernels.leaky_relu`."""
    y = leaky_relu_kernel.forward(x, slope=slope)
    sign = y if slope >= 0 else x  # y has the sign of x then, and the next layer keeps it anyway
    return y, lambda dy: leaky_relu_kernel.backward(dy, sign, slope=slope)


class LeakyReLU(Module):
    """Rectifier with a small fixed slope for negative values (Maas et al. 2013).

    Parameters
    ----------
    negative_slope : float

    Shapes
    ------
    any -> the same
    """

    def __init__(self, negative_slope: float = 0.01) -> None:
        super().__init__()
        self.negative_slope = float(negative_slope)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the activation to an array of any shape."""
        return leaky_relu(x, slope=self.negative_slope)

    def extra_repr(self) -> str:
        """Return the slope."""
        return f"negative_slope={self.negative_slope}"
