"""Check gradients against finite differences, along random directions.

A backward pass that is slightly wrong still trains, only worse. For an output y of inputs x,
draw a random v of y's shape and u of x's; then, with f(x) = sum(v * y(x)),

    sum(u * grad f(x))  must equal  (f(x + eps * u) - f(x - eps * u)) / (2 * eps)

One direction touches every element of the gradient at once, so two forward passes per input
are enough where element-by-element differences would need two per element.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from minidnn.errors import DTypeError, GraphError
from minidnn.module import Module
from minidnn.tensor import Array, Tensor, no_grad


class GradientError(AssertionError):
    """A gradient differs from the finite difference."""


def check_gradients(
    function: Callable[..., Any],
    *arrays: Array,
    eps: float = 1e-6,
    rtol: float = 1e-5,
    directions: int = 3,
    seed: int = 0,
) -> None:
    """Compare backward() with central differences, in float64.

    Parameters
    ----------
    function : callable or Module
        Takes a Tensor for every array; returns a Tensor or a tuple of them. A Module (made
        float64 with ``astype``) has its parameters checked too, but for frozen ones, and its
        buffers put back before every call, so that dropout draws the same mask.
    *arrays : ndarray of float64
        Inputs, which are copied. Keep away from kinks by more than `eps` (the default suits
        normal draws).
    eps : float
        Step of the finite difference, along a direction of normal draws.
    rtol : float
        Largest allowed difference, relative to the derivative.
    directions : int
        How many random directions to try for each input.
    seed : int

    Raises
    ------
    GradientError
        Naming the input or parameter whose gradient is wrong.
    DTypeError
        If an array or parameter is not float64.
    """
    # Copies: an array given twice must move in one place at a time.
    inputs = {f"input {i}": Tensor(np.array(a), requires_grad=True) for i, a in enumerate(arrays)}
    everything = dict(inputs)
    buffers = []
    if isinstance(function, Module):
        trained = ((name, p) for name, p in function.named_parameters() if p.requires_grad)
        everything |= {f"parameter {name}": p for name, p in trained}
        buffers = [(b, b.data.copy()) for _, b in function.named_buffers()]
    for name, tensor in everything.items():
        if tensor.dtype != np.float64:
            raise DTypeError(
                f"check_gradients: {name}: expected float64, got {tensor.dtype}; "
                "use .astype(np.float64) on arrays and on the module"
            )

    def run() -> list[Tensor]:
        for buffer, kept in buffers:
            buffer.data[...] = kept
        result = function(*inputs.values())
        return list(result) if isinstance(result, tuple | list) else [result]

    rng = np.random.default_rng(seed)
    for tensor in everything.values():
        tensor.grad = None
    outputs = run()
    weights = [rng.standard_normal(y.shape) for y in outputs]
    total = sum(
        ((y * v).sum() for y, v in zip(outputs, weights, strict=True)), start=Tensor(np.zeros(()))
    )
    if not total.requires_grad:
        raise GraphError("check_gradients: the output does not depend on any input")
    total.backward()

    def projected() -> tuple[float, float]:
        """Return f, and the sum of magnitudes in it, which bounds its rounding error."""
        with no_grad():
            terms = [y.data * v for y, v in zip(run(), weights, strict=True)]
        return sum(float(t.sum()) for t in terms), sum(float(np.abs(t).sum()) for t in terms)

    for name, tensor in everything.items():
        for _ in range(directions):
            _check_one(name, tensor, rng.standard_normal(tensor.shape), projected, eps, rtol)
    run()


def _check_one(
    name: str,
    tensor: Tensor,
    direction: Array,
    projected: Callable[[], tuple[float, float]],
    eps: float,
    rtol: float,
) -> None:
    """Compare one directional derivative; the tensor's values are put back."""
    grad = np.zeros(tensor.shape) if tensor.grad is None else tensor.grad
    kept = tensor.data.copy()
    try:
        tensor.data[...] = kept + eps * direction
        above, magnitude = projected()
        tensor.data[...] = kept - eps * direction
        below, _ = projected()
    finally:
        tensor.data[...] = kept
    want = (above - below) / (2 * eps)
    got = float((grad * direction).sum())
    rounding = 100 * np.finfo(np.float64).eps * magnitude / eps
    if not abs(got - want) <= rtol * max(abs(got), abs(want)) + rounding:
        raise GradientError(
            f"{name} of shape {tensor.shape}: backward() gives a slope of {got:.8g} along a random "
            f"direction, finite differences give {want:.8g}"
        )
