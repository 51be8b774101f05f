"""Activations: PReLU, LeakyReLU, ReLU."""

from __future__ import annotations

import numpy as np

from minidnn.errors import GraphError
from minidnn.kernels import leaky_relu as leaky_relu_kernel
from minidnn.kernels import prelu as prelu_kernel
from minidnn.kernels import relu as relu_kernel
from minidnn.module import Module, Parameter
from minidnn.tensor import Array, Backward, Tensor, on_tape, op


@op
def prelu(x: Array, slope: Array) -> tuple[Array, Backward]:
    """x where x > 0, else slope * x; the loops are in `minidnn.kernels.prelu`."""
    y = prelu_kernel.forward(x, slope)

    def backward(dy: Array) -> tuple[Array, Array]:
        return prelu_kernel.backward(dy, x, slope)

    return y, backward


class Fused:
    """Agreement between a batch norm and the PReLU after it: the first does the second's work.

    Made by `minidnn.fuse` where the traced graph shows that nothing else reads what the
    batch norm gives. The batch norm leaves its output here, the PReLU picks it up.

    Parameters
    ----------
    slope : Parameter
        The PReLU's, of shape (C,) or (1,).
    """

    def __init__(self, slope: Parameter) -> None:
        self.slope = slope
        self.ready: Tensor | None = None

    def takes_over(self, *inputs: Tensor | None) -> bool:
        """Tell whether to fuse this call: only on the tape, where it saves memory and time."""
        if self.ready is not None:
            self.ready = None
            raise GraphError(
                "fused batch norm: its last output did not reach the PReLU that the trace showed "
                "behind it; a model that takes another way from call to call cannot be fused, "
                "see minidnn.unfuse"
            )
        return on_tape(*inputs, self.slope)

    def expect(self, y: Tensor) -> Tensor:
        """Keep what the PReLU is to find done already."""
        self.ready = y
        return y

    def done(self, x: Tensor) -> bool:
        """Tell the PReLU whether its input has been activated."""
        found, self.ready = self.ready is x, None
        return found


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
        self.fused: Fused | None = None  # set by `minidnn.fuse`

    def forward(self, x: Tensor) -> Tensor:
        """Apply the activation to an array of shape (..., C)."""
        if self.fused is not None and self.fused.done(x):
            return x
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
