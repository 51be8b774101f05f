"""Convolutions: Conv2d, DepthwiseConv2d, PointwiseConv2d, SeparableConv2d, each beside its op."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minidnn import init
from minidnn.errors import ConfigError, ShapeError
from minidnn.kernels import bias as bias_kernel
from minidnn.kernels import conv2d as conv2d_kernel
from minidnn.kernels import depthwise as depthwise_kernel
from minidnn.kernels import pointwise as pointwise_kernel
from minidnn.kernels.windows import Pads, Pair, same_pads
from minidnn.layers.settings import Padding, padding_of, pair, positive
from minidnn.module import Module, Parameter
from minidnn.tensor import Array, Backward, Tensor, op

# --- ops ------------------------------------------------------------------------------


@op(macs=lambda y, x, w, bias=None, **settings: y.size * math.prod(w.shape[:3]))
def conv2d(
    x: Array,
    w: Array,
    bias: Array | None,
    *,
    stride: Pair,
    pads: Pads,
    dilation: Pair,
    groups: int,
) -> tuple[Array, Backward]:
    """Convolution; the loops are in `minidnn.kernels.conv2d`."""
    settings: dict[str, Any] = {
        "stride": stride,
        "pads": pads,
        "dilation": dilation,
        "groups": groups,
    }
    size, kernel_size = (x.shape[1:3], w.shape[:2])
    y = conv2d_kernel.forward(x, w, **settings)
    if bias is not None:
        bias_kernel.forward(y, bias, out=y)

    return y, (
        lambda dy: conv2d_kernel.backward_input(dy, w, size=size, **settings),
        lambda dy: conv2d_kernel.backward_weight(dy, x, kernel_size=kernel_size, **settings),
        lambda dy: bias_kernel.backward(dy),
    )


@op(macs=lambda y, x, w, bias=None, **settings: y.size * math.prod(w.shape[:2]))
def depthwise(
    x: Array, w: Array, bias: Array | None, *, stride: Pair, pads: Pads
) -> tuple[Array, Backward]:
    """Depthwise convolution; the loops are in `minidnn.kernels.depthwise`."""
    y = depthwise_kernel.forward(x, w, stride=stride, pads=pads)
    if bias is not None:
        bias_kernel.forward(y, bias, out=y)

    def backward(dy: Array) -> tuple[Array, Array, Array | None]:
        dx, dw = depthwise_kernel.backward(dy, x, w, stride=stride, pads=pads)
        return dx, dw, None if bias is None else bias_kernel.backward(dy)

    return y, backward


@op(macs=lambda y, x, w, bias=None: y.size * w.shape[0])
def pointwise(x: Array, w: Array, bias: Array | None) -> tuple[Array, Backward]:
    """1x1 convolution; the loops are in `minidnn.kernels.pointwise` and `gemm`."""
    y = pointwise_kernel.forward(x, w)
    if bias is not None:
        bias_kernel.forward(y, bias, out=y)
    return y, (
        lambda dy: pointwise_kernel.backward_input(dy, w),
        lambda dy: pointwise_kernel.backward_weight(dy, x),
        lambda dy: bias_kernel.backward(dy),
    )


@op
def repeat_channels(x: Array, *, times: int) -> tuple[Array, Backward]:
    """Every channel `times` times in a row: c0 c0 c1 c1 ..."""

    def backward(dy: Array) -> Array:
        return np.asarray(dy.reshape(*x.shape, times).sum(axis=-1))

    return np.repeat(x, times, axis=-1), backward


# --- layers ---------------------------------------------------------------------------


class _Sliding(Module):
    """What layers with a kernel window share: its settings, and pads that follow the input."""

    def __init__(
        self,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int],
        padding: Padding,
        dilation: int | tuple[int, int] = 1,
    ) -> None:
        super().__init__()
        self.kernel_size = pair("kernel_size", kernel_size, 1)
        self.stride = pair("stride", stride, 1)
        self.dilation = pair("dilation", dilation, 1)
        self.padding = padding_of(padding)

    def _pads(self, shape: tuple[int, ...], channels: int) -> Pads:
        """Return the zeros around a map of that shape: (top, bottom, left, right)."""
        if len(shape) != 4 or shape[3] != channels:
            raise ShapeError(
                f"expected images of shape (N, H, W, {channels}), got {shape}; "
                "images are NHWC, channels last"
            )
        if self.padding == "same":
            return same_pads((shape[1], shape[2]), self.kernel_size, self.stride, self.dilation)
        h, w = self.padding
        return h, h, w, w

    def _window_repr(self) -> str:
        text = f"kernel_size={self.kernel_size}, stride={self.stride}"
        if self.padding != (0, 0):
            text += f", padding={self.padding!r}"
        return text + (f", dilation={self.dilation}" if self.dilation != (1, 1) else "")


class Conv2d(_Sliding):
    """Convolution (a cross-correlation, as in PyTorch).

    Parameters
    ----------
    in_channels, out_channels : int
    kernel_size, stride, dilation : int or (int, int)
        Height first.
    padding : int, (int, int), "same" or "valid"
        Zeros on both sides; "same" is Keras's: ceil(size / stride) outputs, and where the
        zeros needed are odd in number (3x3 at stride 2) the extra one goes to the bottom or
        right. PyTorch's "same" exists at stride 1 only, and agrees there.
    groups : int
        Output channels of a group see that group's input channels alone.
    bias : bool
    rng : numpy.random.Generator, optional
        Draws the weights from N(0, 2 / fan_in) (He et al. 2015); biases start at zero.

    Attributes
    ----------
    weight : Parameter of shape (KH, KW, in_channels / groups, out_channels)
    bias : Parameter of shape (out_channels,), or None

    Shapes
    ------
    (N, H, W, in_channels) -> (N, OH, OW, out_channels), where
    OH = floor((H + pads - dilation * (KH - 1) - 1) / stride) + 1

    Raises
    ------
    ConfigError
        For settings out of range, or channels that `groups` does not divide.
    ShapeError
        In the call, for another number of channels, or a map smaller than the kernel.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: Padding = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
        rng: np.random.Generator | None = None,
    ) -> None:
        super().__init__(kernel_size, stride, padding, dilation)
        positive(in_channels=in_channels, out_channels=out_channels, groups=groups)
        if in_channels % groups or out_channels % groups:
            raise ConfigError(
                f"groups={groups}: expected it to divide in_channels={in_channels} "
                f"and out_channels={out_channels}"
            )
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        shape = (*self.kernel_size, in_channels // groups, out_channels)
        weight = init.kaiming_normal(shape, rng or init.default_rng(), fan_in=math.prod(shape[:3]))
        self.weight = Parameter(weight)
        self.bias = Parameter(np.zeros(out_channels, np.float32), decay=False) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """Convolve images (N, H, W, in_channels)."""
        return conv2d(
            x,
            self.weight,
            self.bias,
            stride=self.stride,
            pads=self._pads(x.shape, self.in_channels),
            dilation=self.dilation,
            groups=self.groups,
        )

    def extra_repr(self) -> str:
        """Return the settings as PyTorch prints them."""
        text = f"{self.in_channels}, {self.out_channels}, {self._window_repr()}"
        text += f", groups={self.groups}" if self.groups != 1 else ""
        return text + ("" if self.bias is not None else ", bias=False")


class DepthwiseConv2d(_Sliding):
    """Depthwise convolution: each channel has a kernel of its own.

    PyTorch writes it ``Conv2d(channels, channels * multiplier, k, groups=channels)``.

    Parameters
    ----------
    channels : int
    kernel_size, stride : int or (int, int)
    padding : int, (int, int), "same" or "valid"
        As in `Conv2d`.
    multiplier : int
        Kernels per channel; output channel c * multiplier + m sees channel c. More than one
        costs a copy of the input with its channels repeated.
    bias : bool
    rng : numpy.random.Generator, optional
        Draws the weights from N(0, 1 / (KH * KW)).

    Attributes
    ----------
    weight : Parameter of shape (KH, KW, channels * multiplier), spared by weight decay
    bias : Parameter of shape (channels * multiplier,), or None

    Shapes
    ------
    (N, H, W, channels) -> (N, OH, OW, channels * multiplier)

    Raises
    ------
    ConfigError, ShapeError
        As in `Conv2d`.
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int | tuple[int, int] = 3,
        stride: int | tuple[int, int] = 1,
        padding: Padding = "same",
        multiplier: int = 1,
        bias: bool = False,
        rng: np.random.Generator | None = None,
    ) -> None:
        super().__init__(kernel_size, stride, padding)
        positive(channels=channels, multiplier=multiplier)
        self.channels, self.multiplier = channels, multiplier
        shape = (*self.kernel_size, channels * multiplier)
        std = 1 / math.sqrt(math.prod(self.kernel_size))
        self.weight = Parameter(init.normal(shape, rng or init.default_rng(), std=std), decay=False)
        self.bias = Parameter(np.zeros(shape[2], np.float32), decay=False) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """Convolve images (N, H, W, channels)."""
        pads = self.pads(x.shape)
        if self.multiplier > 1:
            x = repeat_channels(x, times=self.multiplier)
        return depthwise(x, self.weight, self.bias, stride=self.stride, pads=pads)

    def pads(self, shape: tuple[int, ...]) -> Pads:
        """Return the zeros around a map of that shape: (top, bottom, left, right)."""
        return self._pads(shape, self.channels)

    def extra_repr(self) -> str:
        """Return the settings."""
        text = f"{self.channels}, {self._window_repr()}"
        text += f", multiplier={self.multiplier}" if self.multiplier != 1 else ""
        return text + ("" if self.bias is not None else ", bias=False")


class PointwiseConv2d(Module):
    """1x1 convolution: the same matrix applied to every pixel's channels.

    Parameters
    ----------
    in_channels, out_channels : int
    bias : bool
    rng : numpy.random.Generator, optional
        Draws the weights from N(0, 2 / ((1 + 0.25^2) in_channels)): He's rule for a PReLU
        that starts at slope 0.25.

    Attributes
    ----------
    weight : Parameter of shape (in_channels, out_channels)
    bias : Parameter of shape (out_channels,), or None

    Shapes
    ------
    (N, H, W, in_channels) -> (N, H, W, out_channels)

    Raises
    ------
    ConfigError, ShapeError
        As in `Conv2d`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        bias: bool = False,
        rng: np.random.Generator | None = None,
    ) -> None:
        super().__init__()
        positive(in_channels=in_channels, out_channels=out_channels)
        self.in_channels, self.out_channels = in_channels, out_channels
        weight = init.kaiming_normal(
            (in_channels, out_channels),
            rng or init.default_rng(),
            fan_in=in_channels,
            slope=0.25,
        )
        self.weight = Parameter(weight)
        self.bias = Parameter(np.zeros(out_channels, np.float32), decay=False) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """Apply the matrix to images (N, H, W, in_channels)."""
        if x.ndim != 4 or x.shape[3] != self.in_channels:
            raise ShapeError(
                f"expected images of shape (N, H, W, {self.in_channels}), got {x.shape}; "
                "images are NHWC, channels last"
            )
        return pointwise(x, self.weight, self.bias)

    def extra_repr(self) -> str:
        """Return the settings."""
        bias = "" if self.bias is not None else ", bias=False"
        return f"{self.in_channels}, {self.out_channels}{bias}"


class SeparableConv2d(Module):
    """Depthwise, then pointwise convolution, nothing between (Sifre 2014; QuickNet s. 2.3).

    KH * KW + out_channels products per input value instead of KH * KW * out_channels.

    Parameters
    ----------
    in_channels, out_channels : int
    kernel_size, stride : int or (int, int)
    padding : int, (int, int), "same" or "valid"
        As in `Conv2d`.
    bias : bool
        Of the pointwise part; the depthwise part has none.
    rng : numpy.random.Generator, optional

    Attributes
    ----------
    depthwise : DepthwiseConv2d
    pointwise : PointwiseConv2d

    Shapes
    ------
    (N, H, W, in_channels) -> (N, OH, OW, out_channels)

    Raises
    ------
    ConfigError, ShapeError
        As in `Conv2d`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int] = 3,
        stride: int | tuple[int, int] = 1,
        padding: Padding = "same",
        bias: bool = False,
        rng: np.random.Generator | None = None,
    ) -> None:
        super().__init__()
        rng = rng or init.default_rng()
        self.depthwise = DepthwiseConv2d(in_channels, kernel_size, stride, padding, rng=rng)
        self.pointwise = PointwiseConv2d(in_channels, out_channels, bias=bias, rng=rng)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve images (N, H, W, in_channels)."""
        y: Tensor = self.pointwise(self.depthwise(x))
        return y
