"""The checks of both ladders, and the rungs that run the two ops one after the other."""

from __future__ import annotations

from typing import TypeAlias

from .. import batchnorm, prelu
from ..checks import Array, ShapeError, check_array

Output: TypeAlias = tuple[Array, Array, Array]  # y, mean, var
Gradients: TypeAlias = tuple[Array, Array, Array, Array]  # dx, dgamma, dbeta, dslope


def check_forward(x: Array, gamma: Array, beta: Array, slope: Array, *, eps: float) -> None:
    """Raise unless gamma, beta and slope fit x (..., C); a slope may be one for all channels."""
    batchnorm.check_forward(x, gamma, beta, eps=eps)
    check_array("slope", slope, like=x)
    if slope.shape not in ((1,), x.shape[-1:]):
        raise ShapeError(f"slope: expected shape (1,) or {x.shape[-1:]}, got {slope.shape}")


def check_given(
    x: Array, gamma: Array, beta: Array, slope: Array, mean: Array, var: Array, *, eps: float
) -> None:
    """Raise unless everything fits x (..., C): statistics too, which are not taken from it."""
    batchnorm.check_inference(x, gamma, beta, mean, var, eps=eps)
    check_forward(x, gamma, beta, slope, eps=eps)


def check_backward(
    dy: Array,
    x: Array,
    gamma: Array,
    beta: Array,
    slope: Array,
    mean: Array,
    var: Array,
    *,
    eps: float,
) -> None:
    """Raise unless dy and all others fit x (..., C)."""
    batchnorm.check_backward(dy, x, gamma, mean, var, eps=eps)
    check_forward(x, gamma, beta, slope, eps=eps)


def _forward_in_turn(
    rung: str, x: Array, gamma: Array, beta: Array, slope: Array, eps: float
) -> Output:
    z, mean, var = batchnorm.forward[rung](x, gamma, beta, eps=eps)
    return prelu.forward[rung](z, slope), mean, var


def _backward_in_turn(
    rung: str,
    dy: Array,
    x: Array,
    gamma: Array,
    beta: Array,
    slope: Array,
    mean: Array,
    var: Array,
    eps: float,
) -> Gradients:
    z = batchnorm.inference[rung](x, gamma, beta, mean, var, eps=eps)
    dz, dslope = prelu.backward[rung](dy, z, slope)
    return *batchnorm.backward[rung](dz, x, gamma, mean, var, eps=eps), dslope


def forward_naive(x: Array, gamma: Array, beta: Array, slope: Array, *, eps: float) -> Output:
    """Normalise, then activate: loop after loop."""
    return _forward_in_turn("naive", x, gamma, beta, slope, eps)


def forward_numpy(x: Array, gamma: Array, beta: Array, slope: Array, *, eps: float) -> Output:
    """Normalise, then activate: whole arrays at a time."""
    return _forward_in_turn("numpy", x, gamma, beta, slope, eps)


def backward_naive(
    dy: Array,
    x: Array,
    gamma: Array,
    beta: Array,
    slope: Array,
    mean: Array,
    var: Array,
    *,
    eps: float,
) -> Gradients:
    """Compute z again, then go back through one op after the other."""
    return _backward_in_turn("naive", dy, x, gamma, beta, slope, mean, var, eps)


def backward_numpy(
    dy: Array,
    x: Array,
    gamma: Array,
    beta: Array,
    slope: Array,
    mean: Array,
    var: Array,
    *,
    eps: float,
) -> Gradients:
    """Compute z again, then go back through one op after the other."""
    return _backward_in_turn("numpy", dy, x, gamma, beta, slope, mean, var, eps)
