"""A traced network as an ONNX model, for the engines that read such files; imports onnx.

A pass over `minidnn.graph.trace`: every op becomes ONNX's of the same meaning, batch norm
included, so that folding and fusing stay the reader's business. Maps turn from NHWC to NCHW,
weights to ONNX's order. The batch axis keeps a name in place of a size; a reader fixes it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from bench.onnx_names import BATCH, INPUT, OUTPUT
from minidnn.graph import Graph, Step, trace
from minidnn.module import Module

OPSET = 17
IR_VERSION = 8  # old enough for every engine that knows the opset

Emit = Callable[["_Writer", Step, list[str], str], None]


class _Writer:
    """Collects nodes and weights."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.nodes: list[Any] = []
        self.weights: list[Any] = []

    def weight(self, name: str, array: Any) -> str:
        """Store an array; return its name."""
        if all(stored.name != name for stored in self.weights):
            self.weights.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def node(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> None:
        """Add an operator."""
        self.nodes.append(helper.make_node(kind, inputs, [output], **attributes))

    def parameter(self, step: Step, number: int, order: tuple[int, ...], shape: Any = None) -> str:
        """Store an op's input, a parameter, with its axes in another order; return its name."""
        index = step.inputs[number]
        assert index is not None
        value = self.graph.values[index]
        if value.parameter is None:
            raise SystemExit(f"ONNX: {step.path} ({step.op.name}): input {number} is no parameter")
        array = value.parameter.data.transpose(order)
        return self.weight(value.name, array if shape is None else array.reshape(shape))

    def bias(self, step: Step) -> list[str]:
        """Store an op's third input if it has one."""
        return [] if step.inputs[2] is None else [self.parameter(step, 2, (0,))]


def _onnx_pads(pads: tuple[int, int, int, int]) -> list[int]:
    top, bottom, left, right = pads
    return [top, left, bottom, right]


def _conv2d(to: _Writer, step: Step, inputs: list[str], output: str) -> None:
    settings = step.settings
    to.node(
        "Conv",
        [inputs[0], to.parameter(step, 1, (3, 2, 0, 1)), *to.bias(step)],
        output,
        strides=settings["stride"],
        pads=_onnx_pads(settings["pads"]),
        dilations=settings["dilation"],
        group=settings["groups"],
    )


def _depthwise(to: _Writer, step: Step, inputs: list[str], output: str) -> None:
    index = step.inputs[1]
    assert index is not None
    kh, kw, channels = to.graph.values[index].shape
    to.node(
        "Conv",
        [inputs[0], to.parameter(step, 1, (2, 0, 1), (channels, 1, kh, kw)), *to.bias(step)],
        output,
        strides=step.settings["stride"],
        pads=_onnx_pads(step.settings["pads"]),
        group=channels,
    )


def _pointwise(to: _Writer, step: Step, inputs: list[str], output: str) -> None:
    index = step.inputs[1]
    assert index is not None
    c_in, c_out = to.graph.values[index].shape
    weight = to.parameter(step, 1, (1, 0), (c_out, c_in, 1, 1))
    to.node("Conv", [inputs[0], weight, *to.bias(step)], output)


def _batchnorm(to: _Writer, step: Step, inputs: list[str], output: str) -> None:
    running = [
        to.weight(f"{step.path}.{name}", step.settings[name])
        for name in ("running_mean", "running_var")
    ]
    affine = [to.parameter(step, number, (0,)) for number in (1, 2)]
    eps = step.settings["eps"]
    to.node("BatchNormalization", [inputs[0], *affine, *running], output, epsilon=eps)


def _prelu(to: _Writer, step: Step, inputs: list[str], output: str) -> None:
    to.node("PRelu", [inputs[0], to.parameter(step, 1, (0,), (-1, 1, 1))], output)


def _max_pool(to: _Writer, step: Step, inputs: list[str], output: str) -> None:
    to.node(
        "MaxPool",
        [inputs[0]],
        output,
        kernel_shape=step.settings["size"],
        strides=step.settings["stride"],
        pads=_onnx_pads(step.settings["pads"]),
        ceil_mode=int(step.settings["ceil_mode"]),
    )


def _global_avg_pool(to: _Writer, step: Step, inputs: list[str], output: str) -> None:
    to.node("GlobalAveragePool", [inputs[0]], f"{output}_map")
    to.node("Flatten", [f"{output}_map"], output)


def _linear(to: _Writer, step: Step, inputs: list[str], output: str) -> None:
    to.node("Gemm", [inputs[0], to.parameter(step, 1, (0, 1)), *to.bias(step)], output)


OPS: dict[str, Emit] = {
    "conv2d": _conv2d,
    "depthwise": _depthwise,
    "pointwise": _pointwise,
    "batchnorm_inference": _batchnorm,
    "prelu": _prelu,
    "max_pool": _max_pool,
    "global_avg_pool": _global_avg_pool,
    "linear": _linear,
}


def to_onnx(model: Module, image: tuple[int, int, int]) -> Any:
    """Return a network of the layers that QuickNet and plain_cnn are made of, for inference.

    Parameters
    ----------
    model : Module
    image : (H, W, C)

    Returns
    -------
    onnx.ModelProto
        From `INPUT` (`BATCH`, C, H, W) to `OUTPUT` (`BATCH`, classes), float32.
    """
    graph = trace(model, (1, *image))
    to = _Writer(graph)
    (source,), (target,) = graph.inputs, graph.outputs
    names = {source: INPUT, target: OUTPUT}
    for step in graph.steps:
        if step.op.name not in OPS:
            known = ", ".join(sorted(OPS))
            raise SystemExit(f"ONNX: {step.path}: no op {step.op.name!r} here, only {known}")
        inputs = ["" if index is None else names.get(index, f"v{index}") for index in step.inputs]
        OPS[step.op.name](to, step, inputs, names.get(step.output, f"v{step.output}"))
    height, width, channels = image
    classes = graph.values[target].shape[-1]
    described = helper.make_graph(
        to.nodes,
        "minidnn",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, [BATCH, channels, height, width])],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, [BATCH, classes])],
        to.weights,
    )
    made = helper.make_model(
        described, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
    )
    onnx.checker.check_model(made)
    return made
