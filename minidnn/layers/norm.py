"""Batch normalisation: BatchNorm2d, BatchNorm1d."""

from __future__ import annotations

from typing import Any

import numpy as np

from minidnn.errors import ConfigError, ShapeError
from minidnn.kernels import batchnorm as kernel
from minidnn.kernels.checks import check_array
from minidnn.module import Buffer, Module, Parameter
from minidnn.tensor import Array, Backward, Tensor, op


def affine(x: Array, weight: Array | None, bias: Array | None) -> tuple[Array, Array]:
    """Return gamma and beta; one and zero where there are no parameters."""
    channels = x.shape[-1:]
    gamma = np.ones(channels, x.dtype) if weight is None else weight
    return gamma, np.zeros(channels, x.dtype) if bias is None else bias


def check_training(x: Array, running_mean: Array, running_var: Array) -> None:
    """Raise unless x (..., C) has a variance, and the running statistics fit it."""
    rows = x.size // max(1, x.shape[-1])
    if rows < 2:
        raise ShapeError(
            f"batch norm in training: expected more than one value per channel, got shape "
            f"{x.shape}; use a larger batch or model.eval()"
        )
    for name, statistic in (("running_mean", running_mean), ("running_var", running_var)):
        check_array(name, statistic, x.shape[-1:], like=x)  # += below would cast in silence


def move(
    running_mean: Array, running_var: Array, mean: Array, var: Array, momentum: float, x: Array
) -> None:
    """Move the running statistics towards those of the batch x (..., C), in place."""
    rows = x.size // x.shape[-1]
    with np.errstate(invalid="ignore", over="ignore"):  # the loss shows what went wrong
        running_mean += momentum * (mean - running_mean)
        # The batch's variance is biased; what to expect of others is rows / (rows - 1) of it.
        running_var += momentum * (var * (rows / (rows - 1)) - running_var)


@op
def batchnorm(
    x: Array,
    weight: Array | None,
    bias: Array | None,
    *,
    running_mean: Array,
    running_var: Array,
    eps: float,
    momentum: float,
) -> tuple[Array, Backward]:
    """Normalise with this batch's statistics and move the running ones towards them, in place.

    The loops are in `minidnn.kernels.batchnorm`.
    """
    check_training(x, running_mean, running_var)
    gamma, beta = affine(x, weight, bias)
    y, mean, var = kernel.forward(x, gamma, beta, eps=eps)
    move(running_mean, running_var, mean, var, momentum, x)

    def backward(dy: Array) -> tuple[Array, Array, Array]:
        return kernel.backward(dy, x, gamma, mean, var, eps=eps)

    return y, backward


@op
def batchnorm_inference(
    x: Array,
    weight: Array | None,
    bias: Array | None,
    *,
    running_mean: Array,
    running_var: Array,
    eps: float,
) -> tuple[Array, Backward]:
    """Normalise with given statistics, which count as constants in the backward pass."""
    gamma, beta = affine(x, weight, bias)
    # Copies: a training step before backward() would change the buffers in place.
    mean, var = running_mean.copy(), running_var.copy()
    y = kernel.inference(x, gamma, beta, mean, var, eps=eps)

    def backward(dy: Array) -> tuple[Array, Array, Array]:
        return kernel.inference_backward(dy, x, gamma, mean, var, eps=eps)

    return y, backward


class BatchNorm2d(Module):
    """Batch normalisation over all axes but the last (Ioffe and Szegedy 2015).

    Training uses the statistics of the batch and moves the running ones by `momentum`
    towards them (the variance unbiased, as in PyTorch); evaluation uses the running ones.

    Parameters
    ----------
    num_features : int
        Channels.
    eps : float
        Added to the variance.
    momentum : float
        Share of the new statistics, PyTorch's sense: Keras's 0.99 is 0.01 here.
    affine : bool
        Whether to learn a scale (`weight`) and a shift (`bias`) per channel.

    Shapes
    ------
    (..., C) -> (..., C)

    Raises
    ------
    ShapeError
        Where the last axis is not `num_features`, or in training with one value per channel.
    """

    def __init__(
        self, num_features: int, eps: float = 1e-5, momentum: float = 0.1, affine: bool = True
    ) -> None:
        super().__init__()
        if num_features < 1 or eps < 0 or not 0 <= momentum <= 1:
            raise ConfigError(
                f"{type(self).__name__}: expected num_features >= 1, eps >= 0 and momentum from "
                f"0 to 1, got {num_features}, {eps}, {momentum}"
            )
        self.num_features, self.eps, self.momentum = num_features, float(eps), float(momentum)
        ones, zeros = np.ones(num_features, np.float32), np.zeros(num_features, np.float32)
        self.weight = Parameter(ones.copy(), decay=False) if affine else None
        self.bias = Parameter(zeros.copy(), decay=False) if affine else None
        self.running_mean, self.running_var = Buffer(zeros), Buffer(ones)
        self.num_batches_tracked = Buffer(np.zeros((), np.int64))

    def _check(self, x: Tensor) -> None:
        if x.ndim < 2 or x.shape[-1] != self.num_features:
            raise ShapeError(f"x: expected shape (..., {self.num_features}), got {x.shape}")

    def forward(self, x: Tensor) -> Tensor:
        """Normalise an array of shape (..., C)."""
        if self.training:
            return batchnorm(x, self.weight, self.bias, **self.begin_training(x))
        self._check(x)
        return batchnorm_inference(x, self.weight, self.bias, **self._statistics())

    def begin_training(self, x: Tensor) -> dict[str, Any]:
        """Check x, count this batch, and return the settings of a training op."""
        self._check(x)
        check_training(x.data, self.running_mean.data, self.running_var.data)
        self.num_batches_tracked.data += 1
        return {**self._statistics(), "momentum": self.momentum}

    def _statistics(self) -> dict[str, Any]:
        return {
            "running_mean": self.running_mean.data,
            "running_var": self.running_var.data,
            "eps": self.eps,
        }

    def extra_repr(self) -> str:
        """Return the settings."""
        affine = "" if self.weight is not None else ", affine=False"
        return f"{self.num_features}, eps={self.eps:g}, momentum={self.momentum:g}{affine}"


class BatchNorm1d(BatchNorm2d):
    """`BatchNorm2d` for rows of features.

    Shapes
    ------
    (N, C) -> (N, C)
    """

    def _check(self, x: Tensor) -> None:
        if x.ndim != 2 or x.shape[-1] != self.num_features:
            raise ShapeError(f"x: expected shape (N, {self.num_features}), got {x.shape}")
