"""Fusion for training: a pass over the traced graph that joins layers which share their memory.

A batch norm, the activation behind it, and what reads that (a separable convolution, a max
pool) become one op wherever nobody else reads the values between. Maps between them are then
not stored, or not even written; `minidnn.kernels.separable` tells how. Evaluation and tracing
run the plain layers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from minidnn.chain import Chain
from minidnn.graph import Graph, Step, trace
from minidnn.kernels.separable import worthwhile
from minidnn.kernels.windows import output_size
from minidnn.layers.activation import LeakyReLU, PReLU, ReLU, leaky_relu, prelu, relu
from minidnn.layers.conv import DepthwiseConv2d, PointwiseConv2d, depthwise, pointwise
from minidnn.layers.joined import (
    Moments,
    batchnorm_prelu,
    batchnorm_prelu_max_pool,
    batchnorm_prelu_separable,
    separable,
)
from minidnn.layers.norm import BatchNorm1d, BatchNorm2d, batchnorm
from minidnn.layers.pool import MaxPool2d, max_pool
from minidnn.module import Module
from minidnn.tensor import Array, Op, Tensor

Run = Callable[[Tensor], Tensor]

# The part a layer plays in a chain, and the one op it must have run for that.
PARTS: dict[type[Module], tuple[str, Op]] = {
    BatchNorm1d: ("norm", batchnorm),
    BatchNorm2d: ("norm", batchnorm),
    PReLU: ("act", prelu),
    LeakyReLU: ("act", leaky_relu),
    ReLU: ("act", relu),
    DepthwiseConv2d: ("depthwise", depthwise),
    PointwiseConv2d: ("pointwise", pointwise),
    MaxPool2d: ("max_pool", max_pool),
}


def fuse(model: Module, input_shape: Sequence[int]) -> list[tuple[str, ...]]:
    """Join layers of a model's training pass wherever the result is the same to rounding.

    Parameters
    ----------
    model : Module
        Takes the same way through its layers in every call; residual and branching models
        are fine. Layers with hooks, or of classes of your own, are left alone.
    input_shape : sequence of int
        Of a training batch, e.g. ``(128, 32, 32, 3)``; any batch size will do.

    Returns
    -------
    list of tuple of str
        Paths of the layers that were joined.

    Raises
    ------
    ShapeError
        If the model does not take such an input.
    """
    unfuse(model)
    graph = trace(model, input_shape, training=True)
    readers, calls = _only_readers(graph), Counter(id(step.module) for step in graph.steps)
    chains: list[list[Step]] = []
    taken: set[int] = set()
    for step in graph.steps:
        run, parts = [], []
        here: Step | None = step
        while here is not None and here.output not in taken and (part := _part(here, calls)):
            run.append(here)
            parts.append(part)
            here = readers.get(here.output)
        length = next((len(kind) for kind in KINDS if tuple(parts[: len(kind)]) == kind), 0)
        if length:
            chains.append(run[:length])
            taken.update(s.output for s in run[:length])
    moments = {steps[-1].output: Moments() for steps in chains}
    for steps in chains:
        build = KINDS[tuple(PARTS[type(s.module)][0] for s in steps)]
        modules = [s.module for s in steps]
        known = moments.get(steps[0].inputs[0] or 0, Moments())
        chain = Chain(modules, build(modules, known, moments[steps[-1].output]), _shape_after)
        for module in modules:
            module._chain = chain
    return [tuple(step.path for step in steps) for steps in chains]


def unfuse(model: Module) -> None:
    """Let every layer do its own work again."""
    for module in model.modules():
        module._chain = None


def _only_readers(graph: Graph) -> dict[int, Step]:
    """Return, for each value that one step alone reads, that step."""
    readers: dict[int, list[Step]] = {}
    for step in graph.steps:
        for value in step.inputs:
            if value is not None:
                readers.setdefault(value, []).append(step)
    return {
        value: steps[0]
        for value, steps in readers.items()
        if len(steps) == 1 and value not in graph.outputs
    }


def _part(step: Step, calls: Counter[int]) -> str | None:
    """Return the part that a step can play in a chain."""
    module = step.module
    part, op = PARTS.get(type(module), (None, None))
    if step.op is not op or module._forward_hooks or calls[id(module)] > 1:
        return None
    if isinstance(module, PReLU) and module.weight.ndim > 1:
        return None
    if isinstance(module, DepthwiseConv2d) and not (
        module.kernel_size == (3, 3) and module.stride == (1, 1) and module.bias is None
    ):
        return None
    if isinstance(module, PointwiseConv2d) and not worthwhile(module.weight.shape):
        return None
    return part


def _shape_after(module: Module, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of a layer's output: the input's, but for convolutions."""
    if not isinstance(module, DepthwiseConv2d):
        return shape
    n, h, w, c = shape
    window = module.kernel_size
    return n, *output_size((h, w), window, stride=(1, 1), pads=module.pads(shape)), c


# --- kinds of chains ----------------------------------------------------------------------


def _slope(act: Module | None, x: Tensor) -> Tensor | Array:
    """Return the slope that makes PReLU of an activation; 1 is none."""
    if isinstance(act, PReLU):
        return act.weight
    slope = 1.0 if act is None else act.negative_slope if isinstance(act, LeakyReLU) else 0.0
    return np.full(1, slope, x.dtype)


def _norm_act(modules: list[Module], known: Moments, collected: Moments) -> Run:
    norm, act = modules
    assert isinstance(norm, BatchNorm2d)

    def run(x: Tensor) -> Tensor:
        settings = norm.begin_training(x)
        return batchnorm_prelu(x, norm.weight, norm.bias, _slope(act, x), **settings)

    return run


def _norm_max_pool(modules: list[Module], known: Moments, collected: Moments) -> Run:
    norm, *acts, pool = modules
    assert isinstance(norm, BatchNorm2d)
    assert isinstance(pool, MaxPool2d)

    def run(x: Tensor) -> Tensor:
        slope = _slope(acts[0] if acts else None, x)
        settings = {**norm.begin_training(x), "known": known, "windows": pool.settings(x)}
        return batchnorm_prelu_max_pool(x, norm.weight, norm.bias, slope, **settings)

    return run


def _norm_separable(modules: list[Module], known: Moments, collected: Moments) -> Run:
    norm, *acts, first, second = modules
    assert isinstance(norm, BatchNorm2d)
    assert isinstance(first, DepthwiseConv2d)
    assert isinstance(second, PointwiseConv2d)

    def run(x: Tensor) -> Tensor:
        return batchnorm_prelu_separable(
            x,
            norm.weight,
            norm.bias,
            _slope(acts[0] if acts else None, x),
            first.weight,
            second.weight,
            second.bias,
            **norm.begin_training(x),
            pads=first.pads(x.shape),
            known=known,
            collected=collected,
        )

    return run


def _separable(modules: list[Module], known: Moments, collected: Moments) -> Run:
    first, second = modules
    assert isinstance(first, DepthwiseConv2d)
    assert isinstance(second, PointwiseConv2d)

    def run(x: Tensor) -> Tensor:
        weights = first.weight, second.weight, second.bias
        return separable(x, *weights, pads=first.pads(x.shape), collected=collected)

    return run


# Longest first: a step starts the first kind it can.
KINDS: dict[tuple[str, ...], Callable[[list[Module], Moments, Moments], Run]] = {
    ("norm", "act", "depthwise", "pointwise"): _norm_separable,
    ("norm", "depthwise", "pointwise"): _norm_separable,
    ("norm", "act", "max_pool"): _norm_max_pool,
    ("norm", "max_pool"): _norm_max_pool,
    ("depthwise", "pointwise"): _separable,
    ("norm", "act"): _norm_act,
}
