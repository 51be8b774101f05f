"""Pooling: MaxPool2d, AvgPool2d, GlobalAvgPool2d."""

from __future__ import annotations

from typing import Any

from minidnn.errors import ConfigError, ShapeError
from minidnn.kernels import avg_pool as avg_pool_kernel
from minidnn.kernels import global_avg_pool as global_avg_pool_kernel
from minidnn.kernels import max_pool as max_pool_kernel
from minidnn.kernels.windows import Pads, Pair, same_pads
from minidnn.layers.settings import Padding, padding_of, pair
from minidnn.module import Module
from minidnn.tensor import Array, Backward, Tensor, op


@op
def max_pool(
    x: Array, *, size: Pair, stride: Pair, pads: Pads, ceil_mode: bool
) -> tuple[Array, Backward]:
    """Largest value of each window; the loops are in `minidnn.kernels.max_pool`."""
    windows: dict[str, Any] = {
        "size": size,
        "stride": stride,
        "pads": pads,
        "ceil_mode": ceil_mode,
    }
    y, argmax = max_pool_kernel.forward(x, **windows)
    shape = x.shape  # all that backward needs of x, which may go
    return y, lambda dy: max_pool_kernel.backward(dy, argmax, x_shape=shape, **windows)


@op
def avg_pool(
    x: Array,
    *,
    size: Pair,
    stride: Pair,
    pads: Pads,
    ceil_mode: bool,
    count_include_pad: bool,
) -> tuple[Array, Backward]:
    """Mean of each window; the loops are in `minidnn.kernels.avg_pool`."""
    windows: dict[str, Any] = {
        "size": size,
        "stride": stride,
        "pads": pads,
        "ceil_mode": ceil_mode,
        "count_include_pad": count_include_pad,
    }
    shape = x.shape
    y = avg_pool_kernel.forward(x, **windows)
    return y, lambda dy: avg_pool_kernel.backward(dy, x_shape=shape, **windows)


@op
def global_avg_pool(x: Array) -> tuple[Array, Backward]:
    """Mean of all pixels; the loops are in `minidnn.kernels.global_avg_pool`."""
    shape = x.shape
    y = global_avg_pool_kernel.forward(x)
    return y, lambda dy: global_avg_pool_kernel.backward(dy, x_shape=shape)


class _Pool(Module):
    def __init__(
        self,
        kernel_size: int | Pair,
        stride: int | Pair | None = None,
        padding: Padding = 0,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__()
        self.kernel_size = pair("kernel_size", kernel_size, 1)
        self.stride = self.kernel_size if stride is None else pair("stride", stride, 1)
        self.ceil_mode = bool(ceil_mode)
        self.padding = padding_of(padding)
        if self.padding != "same" and any(
            2 * pad > k for pad, k in zip(self.padding, self.kernel_size, strict=True)
        ):
            raise ConfigError(
                f"{type(self).__name__}: expected padding of at most half the kernel "
                f"{self.kernel_size}, got {self.padding}"
            )

    def settings(self, x: Tensor) -> dict[str, Any]:
        if x.ndim != 4:
            raise ShapeError(f"x: expected images of shape (N, H, W, C), got {x.shape}")
        if self.padding == "same":
            pads = same_pads((x.shape[1], x.shape[2]), self.kernel_size, self.stride)
        else:
            h, w = self.padding
            pads = (h, h, w, w)
        return {
            "size": self.kernel_size,
            "stride": self.stride,
            "pads": pads,
            "ceil_mode": self.ceil_mode,
        }

    def extra_repr(self) -> str:
        """Return the settings."""
        return (
            f"kernel_size={self.kernel_size}, stride={self.stride}, "
            f"padding={self.padding!r}, ceil_mode={self.ceil_mode}"
        )


class MaxPool2d(_Pool):
    """Largest value of each window; PyTorch's meaning of every argument.

    Parameters
    ----------
    kernel_size : int or (int, int)
    stride : int or (int, int), optional
        `kernel_size` if left out.
    padding : int, (int, int), "same" or "valid"
        Pixels on each side that never win; at most half the kernel. "same" is Keras's:
        ceil(size / stride) outputs, the odd pixel at the bottom and right.
    ceil_mode : bool
        Whether a last window may hang over the end.

    Shapes
    ------
    (N, H, W, C) -> (N, OH, OW, C)

    Raises
    ------
    ShapeError
        Where the image is smaller than a window (in ceil mode, by a whole stride or more).
    """

    def forward(self, x: Tensor) -> Tensor:
        """Pool images (N, H, W, C)."""
        return max_pool(x, **self.settings(x))


class AvgPool2d(_Pool):
    """Mean of each window; PyTorch's meaning of every argument.

    Parameters
    ----------
    kernel_size : int or (int, int)
    stride : int or (int, int), optional
        `kernel_size` if left out.
    padding : int, (int, int), "same" or "valid"
        Zeros on each side; at most half the kernel. "same" is Keras's: ceil(size / stride)
        outputs, the odd pixel at the bottom and right (Keras itself never counts padding).
    ceil_mode : bool
        Whether a last window may hang over the end; what hangs over never counts.
    count_include_pad : bool
        Whether padded zeros count in the divisor.

    Shapes
    ------
    (N, H, W, C) -> (N, OH, OW, C)

    Raises
    ------
    ShapeError
        Where the image is smaller than a window (in ceil mode, by a whole stride or more).
    """

    def __init__(
        self,
        kernel_size: int | Pair,
        stride: int | Pair | None = None,
        padding: Padding = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        super().__init__(kernel_size, stride, padding, ceil_mode)
        self.count_include_pad = bool(count_include_pad)

    def forward(self, x: Tensor) -> Tensor:
        """Pool images (N, H, W, C)."""
        return avg_pool(x, **self.settings(x), count_include_pad=self.count_include_pad)

    def extra_repr(self) -> str:
        """Return the settings."""
        return f"{super().extra_repr()}, count_include_pad={self.count_include_pad}"


class GlobalAvgPool2d(Module):
    """Mean of all pixels (Lin et al. 2014, section 3.2).

    Shapes
    ------
    (N, H, W, C) -> (N, C)
    """

    def forward(self, x: Tensor) -> Tensor:
        """Pool images (N, H, W, C)."""
        return global_avg_pool(x)
