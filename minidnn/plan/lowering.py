"""From the traced graph to a program: one function per op that says which steps it becomes."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minidnn import arithmetic
from minidnn.errors import GraphError, ShapeError
from minidnn.graph import Graph, Value, trace
from minidnn.graph import Step as Run
from minidnn.kernels.avg_pool import window_shares
from minidnn.layers import activation, conv, dropout, linear, norm, pool
from minidnn.module import Module
from minidnn.plan.program import Program, Step, as_map
from minidnn.tensor import Array, Op

TRACED = 2  # images: so that the axis of images cannot be taken for one of size 1


def lower(model: Module, image_shape: Sequence[int]) -> Program:
    """Trace a model in evaluation mode and return its program.

    Parameters
    ----------
    model : Module
    image_shape : sequence of int
        Of one image.

    Raises
    ------
    GraphError
        If the model does not treat every image of a batch by itself.
    """
    graph = trace(model, (TRACED, *image_shape))
    program = Program(input_shape=tuple(image_shape))
    lowering = _Lowering(graph, program)
    program.input = lowering.number[graph.inputs[0]] = program.new_value(program.input_shape)
    for run in graph.steps:
        lowering.add(run)
    for index in graph.outputs:
        if index not in lowering.number:
            raise GraphError("compile: an output of the model does not depend on its input")
        program.outputs.append((lowering.number[index], lowering.image(index)))
    return program


class _Lowering:
    """The program so far, and which of its values each value of the graph is."""

    def __init__(self, graph: Graph, program: Program) -> None:
        self.graph, self.program = graph, program
        self.number: dict[int, int] = {}
        self.warned: set[str] = set()

    def image(self, index: int) -> tuple[int, ...]:
        """Return the shape per image of a value of the graph."""
        value = self.graph.values[index]
        if not value.shape or value.shape[0] != TRACED:
            raise GraphError(
                f"compile: {value.name}: expected a batch along the first axis, got shape "
                f"{value.shape} from {TRACED} images; a compiled model treats every image by itself"
            )
        return value.shape[1:]

    def array(self, index: int | None) -> Array | None:
        """Return a parameter's or a constant's numbers; None for what depends on the input."""
        if index is None:
            return None
        value: Value = self.graph.values[index]
        if value.parameter is not None:
            return np.array(value.parameter.data)
        return None if value.data is None else np.array(value.data)

    def add(self, run: Run) -> None:
        """Add the steps of one run of an op."""
        handle = HANDLERS.get(run.op)
        if handle is None or not handle(self, run):
            self.add_op(run)

    def step(self, run: Run, kind: str, **more: Any) -> Step:
        """Add a step with one input that makes the output of a run."""
        first = run.inputs[0]
        assert first is not None
        shape = as_map(self.image(first))
        out = self.image(run.output)
        if run.output not in self.number:
            self.number[run.output] = self.program.new_value(out)
        more = {"inputs": [self.number[first]], "shape": shape, "out_shape": as_map(out), **more}
        step = Step(
            kind=kind,
            output=self.number[run.output],
            labels=[run.path or run.op.name],
            macs=run.macs // TRACED,
            **more,
        )
        self.program.steps.append(step)
        return step

    def alias(self, run: Run) -> bool:
        """Let the output be the input's memory."""
        first = run.inputs[0]
        assert first is not None
        if first not in self.number:
            return False
        self.image(run.output)
        self.number[run.output] = self.number[first]
        return True

    def add_op(self, run: Run) -> None:
        """Add a step that runs the op's own function; warn once of each that is not ours."""
        inside = run.op.function.__module__.partition(".")[0] == "minidnn"
        if not inside and run.op.name not in self.warned:
            self.warned.add(run.op.name)
            warnings.warn(
                f"compile: {run.path or 'model'}: the op {run.op.name!r} is run by its own "
                "function, between compiled steps",
                stacklevel=2,
            )
        inputs = [None if i is None else self.number.get(i) for i in run.inputs]
        arrays = {}
        for position, (index, known) in enumerate(zip(run.inputs, inputs, strict=True)):
            if known is None and index is not None:
                found = self.array(index)
                if found is None:
                    raise GraphError(f"compile: {run.path}: an input of {run.op.name} is unknown")
                arrays[str(position)] = found
        out = self.image(run.output)
        self.number[run.output] = self.program.new_value(out)
        settings = {**run.settings, "shapes": self.shapes(run)}
        self.program.steps.append(
            Step(
                kind="op",
                inputs=inputs,
                output=self.number[run.output],
                shape=(1, 1, 1),
                out_shape=as_map(out),
                labels=[run.path or run.op.name],
                arrays=arrays,
                op=run.op,
                settings=settings,
                macs=run.macs // TRACED,
            )
        )

    def shapes(self, run: Run) -> list[tuple[int, ...] | None]:
        """Return the shapes per image of a run's inputs that depend on the model's."""
        return [None if i is None or i not in self.number else self.image(i) for i in run.inputs]


Handler = Callable[[_Lowering, Run], bool]


def _weights(at: _Lowering, run: Run) -> tuple[Array, dict[str, Array]] | None:
    """Return a layer's weight and its bias, if they are constants and its input is not."""
    weight, bias = at.array(run.inputs[1]), at.array(run.inputs[2])
    unknown = weight is None or (bias is None and run.inputs[2] is not None)
    if unknown or run.inputs[0] not in at.number:
        return None
    assert weight is not None
    return weight, {} if bias is None else {"bias": bias}


def _conv2d(at: _Lowering, run: Run) -> bool:
    found = _weights(at, run)
    if found is None:
        return False
    w, arrays = found
    groups, (kh, kw, c_in, c_out) = run.settings["groups"], w.shape
    matrix = w.reshape(kh * kw * c_in, c_out)
    if groups > 1:
        parts = matrix.reshape(len(matrix), groups, c_out // groups)
        matrix = np.ascontiguousarray(parts.transpose(1, 0, 2))
    pads = run.settings["pads"]
    at.step(
        run,
        "convolve",
        arrays={"matrix": matrix, **arrays},
        kernel=(kh, kw),
        stride=run.settings["stride"],
        dilation=run.settings["dilation"],
        start=(pads[0], pads[2]),
    )
    return True


def _depthwise(at: _Lowering, run: Run) -> bool:
    found = _weights(at, run)
    if found is None:
        return False
    w, arrays = found
    pads = run.settings["pads"]
    at.step(
        run,
        "depthwise",
        arrays={"taps": w, **arrays},
        kernel=w.shape[:2],
        stride=run.settings["stride"],
        start=(pads[0], pads[2]),
    )
    return True


def _product(at: _Lowering, run: Run) -> bool:
    found = _weights(at, run)
    if found is None:
        return False
    w, arrays = found
    at.step(run, "convolve", arrays={"matrix": w, **arrays})
    return True


def _normalise(at: _Lowering, run: Run) -> bool:
    if run.inputs[0] not in at.number:
        return False
    gamma, beta = (at.array(i) for i in run.inputs[1:3])
    mean, var = (run.settings[name] for name in ("running_mean", "running_var"))
    # Folded in double: the products of two roundings would show in the last digits.
    factor = 1 / np.sqrt(var.astype(np.float64) + run.settings["eps"])
    if gamma is not None:
        factor = factor * gamma
    shift = -mean * factor + (0 if beta is None else beta)
    at.step(run, "scale", arrays={"factor": factor, "bias": shift})
    return True


def _activate(at: _Lowering, run: Run) -> bool:
    if run.inputs[0] not in at.number:
        return False
    channels = at.image(run.output)[-1]
    slope = at.array(run.inputs[1]) if len(run.inputs) > 1 else None
    if slope is None:
        slope = np.full(channels, run.settings.get("slope", 0.0), np.float32)
    elif slope.size == 1:
        slope = np.full(channels, slope.ravel()[0], np.float32)
    at.step(run, "scale", arrays={"slope": slope.ravel()})
    return True


def _max_pool(at: _Lowering, run: Run) -> bool:
    if run.inputs[0] not in at.number:
        return False
    s = run.settings
    start = (s["pads"][0], s["pads"][2])
    at.step(run, "largest", kernel=s["size"], stride=s["stride"], start=start)
    return True


def _avg_pool(at: _Lowering, run: Run) -> bool:
    if run.inputs[0] not in at.number:
        return False
    s, first = run.settings, run.inputs[0]
    assert first is not None
    x_shape = at.graph.values[first].shape
    out = at.image(run.output)
    like = np.empty(0, np.float32)
    found = window_shares(
        x_shape, (out[0], out[1]), s["size"], s["stride"], s["pads"], s["count_include_pad"], like
    )
    start = (s["pads"][0], s["pads"][2])
    arrays = {"shares": found}
    at.step(run, "average", arrays=arrays, kernel=s["size"], stride=s["stride"], start=start)
    return True


def _global_average(at: _Lowering, run: Run) -> bool:
    first = run.inputs[0]
    if first not in at.number or len(at.image(first)) != 3:
        return False
    height, width, channels = at.image(first)
    share = np.full((1, 1), 1 / (height * width), np.float32)
    shape = (1, 1, channels)
    at.step(run, "average", arrays={"shares": share}, kernel=(height, width), out_shape=shape)
    return True


def _mean(at: _Lowering, run: Run) -> bool:
    axis = run.settings["axis"]
    axes = (axis,) if isinstance(axis, int) else axis
    if axes is None or sorted(a % 4 for a in axes) != [1, 2]:
        return False
    return _global_average(at, run)


def _add(at: _Lowering, run: Run) -> bool:
    a, b = run.inputs[:2]
    if a not in at.number or b not in at.number or at.image(a) != at.image(b):
        return False
    at.step(run, "add", inputs=[at.number[a], at.number[b]])
    return True


def _concat(at: _Lowering, run: Run) -> bool:
    ndim = len(at.graph.values[run.output].shape)
    if run.settings["axis"] % ndim != ndim - 1 or any(i not in at.number for i in run.inputs):
        return False
    total, to = at.image(run.output)[-1], 0
    for index in run.inputs:
        assert index is not None
        shape = as_map(at.image(index))
        at.step(
            run, "copy", inputs=[at.number[index]], shape=shape, out_shape=shape, to=to, total=total
        )
        to += shape[2]
    return True


def _repeat(at: _Lowering, run: Run) -> bool:
    if run.inputs[0] not in at.number:
        return False
    at.step(run, "copy", repeat=run.settings["times"])
    return True


def _pad(at: _Lowering, run: Run) -> bool:
    widths = run.settings["widths"]
    if run.inputs[0] not in at.number or len(widths) != 4 or any((*widths[0], *widths[3])):
        return False
    at.step(run, "copy", start=(widths[1][0], widths[2][0]))
    return True


def _reshape(at: _Lowering, run: Run) -> bool:
    return at.alias(run)


def _nothing(at: _Lowering, run: Run) -> bool:
    raise ShapeError(f"compile: {run.path}: {run.op.name} runs in training only")


HANDLERS: dict[Op, Handler] = {
    conv.conv2d: _conv2d,
    conv.depthwise: _depthwise,
    conv.pointwise: _product,
    conv.repeat_channels: _repeat,
    linear.linear: _product,
    norm.batchnorm_inference: _normalise,
    activation.prelu: _activate,
    activation.relu: _activate,
    activation.leaky_relu: _activate,
    pool.max_pool: _max_pool,
    pool.avg_pool: _avg_pool,
    pool.global_avg_pool: _global_average,
    dropout.dropout: _nothing,
    arithmetic.add: _add,
    arithmetic._concat: _concat,
    arithmetic._pad: _pad,
    arithmetic.mean: _mean,
    arithmetic.reshape: _reshape,
}
