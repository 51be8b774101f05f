"""Batch normalisation, differentiated through the projections it is made of."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.oracles import activation


def _flat(a: Any) -> Any:
    return a.reshape(-1, a.shape[-1])


def batchnorm(x: Any, gamma: Any, beta: Any, *, eps: float) -> Any:
    """Output, mean and biased variance; the variance as mean of squared deviations."""
    rows = _flat(x)
    mean = np.add.reduce(rows, axis=0) / len(rows)
    var = np.add.reduce(np.square(rows - mean), axis=0) / len(rows)
    return inference(x, gamma, beta, mean, var, eps=eps), mean, var


def inference(x: Any, gamma: Any, beta: Any, mean: Any, var: Any, *, eps: float) -> Any:
    """The formula."""
    return (x - mean) * (var + eps) ** -0.5 * gamma + beta


def backward(dy: Any, x: Any, gamma: Any, mean: Any, var: Any, *, eps: float) -> Any:
    """Centre and scale are projections: dx = J dy, J written as a matrix over the rows."""
    rows, dys = _flat(x), _flat(dy)
    n = len(rows)
    std = np.sqrt(var + eps)
    xhat = (rows - mean) / std
    dx = np.empty_like(rows)
    for c in range(rows.shape[1]):
        jacobian = np.eye(n) - 1 / n - np.outer(xhat[:, c], xhat[:, c]) / n
        dx[:, c] = jacobian.T @ (dys[:, c] * gamma[c]) / std[c]
    return dx.reshape(x.shape), np.einsum("rc,rc->c", dys, xhat), np.einsum("rc->c", dys)


def inference_backward(dy: Any, x: Any, gamma: Any, mean: Any, var: Any, *, eps: float) -> Any:
    """Mean and variance are constants."""
    std = np.sqrt(var + eps)
    xhat = _flat((x - mean) / std)
    return dy * (gamma / std), np.einsum("rc,rc->c", _flat(dy), xhat), _flat(dy).sum(axis=0)


def batchnorm_prelu(x: Any, gamma: Any, beta: Any, slope: Any, *, eps: float) -> Any:
    """One after the other."""
    z, mean, var = batchnorm(x, gamma, beta, eps=eps)
    return activation.prelu(z, slope), mean, var


def batchnorm_prelu_backward(
    dy: Any, x: Any, gamma: Any, beta: Any, slope: Any, mean: Any, var: Any, *, eps: float
) -> Any:
    """One after the other, backwards."""
    z = inference(x, gamma, beta, mean, var, eps=eps)
    dz, dslope = activation.prelu_backward(dy, z, slope)
    return *backward(dz, x, gamma, mean, var, eps=eps), dslope
