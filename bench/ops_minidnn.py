"""minidnn's side of `bench.compare_ops` and `bench.compare_gemm`."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from safetensors.numpy import save_file

import minidnn
from bench.gemm_cases import GemmCase
from bench.op_cases import LOSS, NORM_ACT, STEM, OpCase
from bench.recipe import SMOOTHING
from bench.side import both_ways, one_way, serve
from minidnn.measure.machine import affinity
from minidnn.threads import num_threads
from minidnn.torch_state import to_torch_state_dict


def layer_of(case: OpCase) -> minidnn.Module:
    """Make the layer with new weights."""
    c_in, c_out = case.c_in, case.c_out
    layers: dict[str, Callable[[], minidnn.Module]] = {
        STEM: lambda: minidnn.Conv2d(c_in, c_out, 5, bias=False),
        "conv2d 3x3": lambda: minidnn.Conv2d(c_in, c_out, 3, padding=1, bias=False),
        "conv2d 3x3 stride 2": lambda: minidnn.Conv2d(c_in, c_out, 3, 2, padding=1, bias=False),
        "depthwise": lambda: minidnn.DepthwiseConv2d(c_in),
        "pointwise": lambda: minidnn.PointwiseConv2d(c_in, c_out),
        "batch norm": lambda: minidnn.BatchNorm2d(c_in),
        "prelu": lambda: minidnn.PReLU(c_in),
        NORM_ACT: lambda: minidnn.Sequential(minidnn.BatchNorm2d(c_in), minidnn.PReLU(c_in)),
        "leaky relu": lambda: minidnn.LeakyReLU(0.1),
        "relu": lambda: minidnn.ReLU(),
        "max pool 2x2": lambda: minidnn.MaxPool2d(2),
        "max pool 3x3": lambda: minidnn.MaxPool2d(3, 2),
        "avg pool 2x2": lambda: minidnn.AvgPool2d(2),
        "global avg pool": lambda: minidnn.GlobalAvgPool2d(),
        "dropout": lambda: minidnn.Dropout(0.5),
        "linear": lambda: minidnn.Linear(c_in, c_out),
    }
    layer = layers[case.kind]()
    if case.kind == NORM_ACT:
        minidnn.fuse(layer, case.input_shape(2))
    return layer


class Passes:
    """A layer or loss with its input and the gradient of its output."""

    def __init__(self, case: OpCase, batch: int) -> None:
        rng = np.random.default_rng(0)
        array = rng.standard_normal(case.input_shape(batch)).astype(np.float32)
        # The first layer of a network needs no gradient of its input.
        self.x = minidnn.Tensor(array, requires_grad=case.kind != STEM)
        self.dy: Any = None
        self.layer: Any = None
        if case.kind == LOSS:
            self.labels = rng.integers(0, case.c_in, batch)
            self.loss = minidnn.CrossEntropyLoss(label_smoothing=SMOOTHING)
        else:
            self.layer = layer_of(case)
            self.dy = rng.standard_normal(self.layer(self.x).shape).astype(np.float32)

    def forward(self) -> Any:
        """Run the layer on the input, with no gradients there before."""
        self.x.grad = None
        if self.layer is None:
            return self.loss(self.x, self.labels)
        for p in self.layer.parameters():
            p.grad = None
        return self.layer(self.x)

    def backward(self, y: minidnn.Tensor) -> None:
        """Fill the gradients of input and weights."""
        y.backward(self.dy)


_passes = lru_cache(maxsize=1)(Passes)


def op(case: list[Any], batch: int) -> tuple[float, float]:
    """Return the seconds of a forward and of a backward pass."""
    passes = _passes(OpCase(*case), batch)
    return both_ways(passes.forward, passes.backward)


def outputs(case: list[Any], batch: int, state: str, result: str) -> None:
    """Write the weights, for PyTorch to start from, and what both passes give from them."""
    passes = Passes(OpCase(*case), batch)
    if passes.layer is not None:
        save_file(to_torch_state_dict(passes.layer), state)
    y = passes.forward()
    passes.backward(y)
    found: dict[str, Any] = {"y": y.data}
    if passes.x.grad is not None:
        found["dx"] = passes.x.grad
    if passes.layer is not None:
        named = list(passes.layer.named_parameters())
        for _, p in named:
            p.data[...] = p.grad
        gradients = to_torch_state_dict(passes.layer)
        found |= {f"d {name}": gradients[name] for name, _ in named}
    np.savez(result, **found)


@lru_cache(maxsize=1)
def _product(case: GemmCase) -> Callable[[], object]:
    a, b = case.draw()
    ladder = case.ladder
    return lambda: ladder(a, b)


def gemm(case: list[Any]) -> float:
    """Return the seconds of one product."""
    return one_way(_product(GemmCase(*case)))


def about() -> dict[str, Any]:
    """Return what this side runs on."""
    return {"threads": num_threads(), "affinity": affinity()}


if __name__ == "__main__":
    serve({"op": op, "outputs": outputs, "gemm": gemm, "about": about})
