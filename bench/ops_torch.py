"""PyTorch's side of `bench.compare_ops`: eager, float32, in both layouts."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn

from bench.op_cases import LOSS, NORM_ACT, STEM, OpCase
from bench.recipe import SMOOTHING
from bench.side import both_ways, serve
from bench.torch_layouts import (
    LAYOUTS,
    images_from_torch,
    images_to_torch,
    weights_channels_last,
)
from minidnn.measure.machine import affinity


def layer_of(case: OpCase) -> nn.Module:
    """Make the layer with new weights."""
    c_in, c_out = case.c_in, case.c_out
    layers: dict[str, Callable[[], nn.Module]] = {
        STEM: lambda: nn.Conv2d(c_in, c_out, 5, bias=False),
        "conv2d 3x3": lambda: nn.Conv2d(c_in, c_out, 3, padding=1, bias=False),
        "conv2d 3x3 stride 2": lambda: nn.Conv2d(c_in, c_out, 3, 2, padding=1, bias=False),
        "depthwise": lambda: nn.Conv2d(c_in, c_in, 3, padding=1, groups=c_in, bias=False),
        "pointwise": lambda: nn.Conv2d(c_in, c_out, 1, bias=False),
        "batch norm": lambda: nn.BatchNorm2d(c_in),
        "prelu": lambda: nn.PReLU(c_in),
        NORM_ACT: lambda: nn.Sequential(nn.BatchNorm2d(c_in), nn.PReLU(c_in)),
        "leaky relu": lambda: nn.LeakyReLU(0.1),
        "relu": lambda: nn.ReLU(),
        "max pool 2x2": lambda: nn.MaxPool2d(2),
        "max pool 3x3": lambda: nn.MaxPool2d(3, 2),
        "avg pool 2x2": lambda: nn.AvgPool2d(2),
        "global avg pool": lambda: nn.AdaptiveAvgPool2d(1),
        "dropout": lambda: nn.Dropout(0.5),
        "linear": lambda: nn.Linear(c_in, c_out),
    }
    return layers[case.kind]()


class Passes:
    """A layer or loss with its input and the gradient of its output."""

    def __init__(self, case: OpCase, batch: int, layout: str, state: str = "") -> None:
        rng = np.random.default_rng(0)
        array = rng.standard_normal(case.input_shape(batch)).astype(np.float32)
        # The first layer of a network needs no gradient of its input.
        self.x = images_to_torch(array, layout).requires_grad_(case.kind != STEM)
        self.dy: torch.Tensor | None = None
        self.layer: nn.Module | None = None
        if case.kind == LOSS:
            self.labels = torch.from_numpy(rng.integers(0, case.c_in, batch))
            self.loss = nn.CrossEntropyLoss(label_smoothing=SMOOTHING)
            return
        self.layer = layer_of(case)
        if state:
            self.layer.load_state_dict(load_file(state))
        if layout == "channels_last":
            weights_channels_last(self.layer)
        y = self.layer(self.x)
        shape = (y.shape[0], *y.shape[2:], y.shape[1]) if y.ndim == 4 else y.shape
        dy = rng.standard_normal(shape).astype(np.float32)
        # Strides as those of y, where a network's next layer would put its gradient.
        self.dy = torch.empty_like(y).copy_(images_to_torch(dy, layout))

    def forward(self) -> Any:
        """Run the layer on the input, with no gradients there before."""
        self.x.grad = None
        if self.layer is None:
            return self.loss(self.x, self.labels)
        self.layer.zero_grad(set_to_none=True)
        return self.layer(self.x)

    def backward(self, y: torch.Tensor) -> None:
        """Fill the gradients of input and weights."""
        torch.autograd.backward(y, self.dy)


_passes = lru_cache(maxsize=len(LAYOUTS))(Passes)


def op(case: list[Any], batch: int, layout: str) -> tuple[float, float]:
    """Return the seconds of a forward and of a backward pass."""
    passes = _passes(OpCase(*case), batch, layout)
    return both_ways(passes.forward, passes.backward)


def outputs(case: list[Any], batch: int, state: str, result: str) -> None:
    """Write what both passes give from given weights, channels last."""
    of = OpCase(*case)
    passes = Passes(of, batch, "channels_last", "" if of.kind == LOSS else state)
    y = passes.forward()
    passes.backward(y)
    found: dict[str, Any] = {"y": images_from_torch(y)}
    if passes.x.grad is not None:
        found["dx"] = images_from_torch(passes.x.grad)
    if passes.layer is not None:
        for name, p in passes.layer.named_parameters():
            assert p.grad is not None
            found[f"d {name}"] = p.grad.numpy()
    np.savez(result, **found)


def about() -> dict[str, Any]:
    """Return what this side runs on."""
    return {"threads": torch.get_num_threads(), "affinity": affinity()}


if __name__ == "__main__":
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    serve({"op": op, "outputs": outputs, "about": about})
