"""Batch norm, PReLU, depthwise and pointwise convolution: one oracle after the other."""

from __future__ import annotations

from typing import Any

from tests.oracles import activation, conv, gemm, norm


def _inner(x: Any, given: Any, eps: float, w: Any, pads: Any) -> tuple[Any, Any, Any]:
    gamma, beta, slope, mean, var = given
    z = norm.inference(x, gamma, beta, mean, var, eps=eps)
    a = activation.prelu(z, slope)
    return z, a, conv.depthwise(a, w, pads=pads)


def forward(x: Any, *args: Any, eps: float, pads: Any) -> Any:
    """The output, what the pointwise part saw, the output's mean and its biased variance."""
    *given, w, matrix = args
    d = _inner(x, given, eps, w, pads)[2]
    y = gemm.matrix(d, matrix)
    rows = y.reshape(-1, y.shape[-1])
    return y, d, rows.mean(axis=0), rows.var(axis=0)


def backward(
    dy: Any, x: Any, d: Any, *args: Any, eps: float, pads: Any, frozen: bool = False
) -> Any:
    """All six gradients; frozen statistics are constants."""
    *given, w, matrix = args
    gamma, _, slope, mean, var = given
    z, a, _ = _inner(x, given, eps, w, pads)
    dd = gemm.matrix_backward_input(dy, matrix)
    da, dw = conv.depthwise_backward(dd, a, w, pads=pads)
    dz, dslope = activation.prelu_backward(da, z, slope)
    normalise = norm.inference_backward if frozen else norm.backward
    dx, dgamma, dbeta = normalise(dz, x, gamma, mean, var, eps=eps)
    return dx, dgamma, dbeta, dslope, dw, gemm.matrix_backward_weight(dy, d)
