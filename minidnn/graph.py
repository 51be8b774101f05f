"""`trace(model, input_shape)`: the graph of ops that summary, profile and export pass over."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from minidnn.kernels.ladder import using
from minidnn.module import Module, Parameter, calling
from minidnn.tensor import Array, Node, Op, Tensor, no_grad, recording


@dataclass(frozen=True)
class Value:
    """An array in the graph: a model input, a parameter, a constant, or a step's output."""

    kind: str
    shape: tuple[int, ...]
    dtype: str
    name: str
    parameter: Parameter | None = None
    data: Array | None = field(default=None, compare=False)  # of a constant


@dataclass(frozen=True)
class Step:
    """One run of an op.

    Attributes
    ----------
    op : Op
    settings : dict
        The keyword arguments it ran with.
    inputs : tuple of int or None
        Indices into `Graph.values`, None where an optional array was left out.
    output : int
        Index into `Graph.values`.
    path : str
        Dotted path of the innermost module that called it; '' for the model itself.
    module : Module
        That module.
    macs : int
        Multiply-accumulates of this run; 0 for ops that declare none.
    """

    op: Op
    settings: dict[str, Any]
    inputs: tuple[int | None, ...]
    output: int
    path: str
    module: Module
    macs: int


@dataclass
class Graph:
    """The ops of one forward pass in the order they ran."""

    values: list[Value] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    inputs: list[int] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)


class _Tracer:
    def __init__(self, model: Module) -> None:
        self.graph = Graph()
        self.paths = {id(m): name for name, m in model.named_modules()}
        self.names = {id(p): name for name, p in model.named_parameters()}
        self.index: dict[int, int] = {}
        self.alive: list[Tensor] = []  # ids stay unique while their tensors live

    def add(self, tensor: Tensor, kind: str, name: str) -> int:
        parameter = tensor if isinstance(tensor, Parameter) else None
        data = tensor.data if kind == "constant" else None
        value = Value(kind, tensor.shape, str(tensor.dtype), name, parameter, data)
        self.graph.values.append(value)
        self.alive.append(tensor)
        self.index[id(tensor)] = len(self.graph.values) - 1
        return self.index[id(tensor)]

    def find(self, tensor: Tensor) -> int:
        if id(tensor) in self.index:
            return self.index[id(tensor)]
        if id(tensor) in self.names:
            return self.add(tensor, "parameter", self.names[id(tensor)])
        return self.add(tensor, "constant", "")

    def record(self, node: Node, output: Tensor) -> None:
        inputs = tuple(None if p is None else self.find(p) for p in node.parents)
        arrays = [None if p is None else p.data for p in node.parents]
        macs = node.op.macs(output.data, *arrays, **node.settings) if node.op.macs else 0
        module = calling()[-1]
        path = self.paths.get(id(module), "")
        index = self.add(output, "step", f"{path}:{node.op.name}")
        self.graph.steps.append(
            Step(node.op, node.settings, inputs, index, path, module, int(macs))
        )


@contextmanager
def _unchanged(model: Module) -> Iterator[None]:
    """Put modes and buffers back: tracing in training mode would move running statistics."""
    modes = [(m, m.training) for m in model.modules()]
    buffers = [(b, b.data.copy()) for _, b in model.named_buffers()]
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        for buffer, data in buffers:
            buffer.data[...] = data


def trace(
    model: Module,
    input_shape: Sequence[int],
    *,
    training: bool = False,
    dtype: DTypeLike = np.float32,
) -> Graph:
    """Run the model once on zeros and return the ops it ran.

    Parameters
    ----------
    model : Module
    input_shape : sequence of int
        Whole shape, batch axis included, e.g. ``(1, 32, 32, 3)``.
    training : bool
        Trace the training pass (batch statistics, dropout) instead of evaluation.
    dtype : dtype
        float32, or float64 for a model converted with ``astype``.

    Returns
    -------
    Graph
        One or several outputs: a forward that returns a tuple, list or dict gives several.
        The model's modes and buffers are left as they were.
    """
    tracer = _Tracer(model)
    x = Tensor(np.zeros(tuple(input_shape), dtype))
    tracer.graph.inputs = [tracer.add(x, "input", "input")]
    # The numpy rungs need no compiler, so a trace takes milliseconds on a cold cache too.
    with _unchanged(model), no_grad(), using("numpy"), recording(tracer.record):
        model.train(training)
        result = model(x)
    if isinstance(result, dict):
        result = list(result.values())
    outputs = result if isinstance(result, tuple | list) else [result]
    tracer.graph.outputs = [tracer.find(t) for t in outputs]
    return tracer.graph
