"""minidnn's side."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from safetensors.numpy import save_file

import minidnn
from bench.op_cases import OpCase
from bench.recipe import LR, MOMENTUM, SMOOTHING, WEIGHT_DECAY, pictures
from bench.side import affinity, seconds, serve
from minidnn.models.quicknet import QuickNet
from minidnn.threads import num_threads


def _layer(case: OpCase) -> minidnn.Module:
    c_in, c_out = case.c_in, case.c_out
    layers: dict[str, Callable[[], minidnn.Module]] = {
        "conv2d 5x5": lambda: minidnn.Conv2d(c_in, c_out, 5, bias=False),
        "conv2d 3x3": lambda: minidnn.Conv2d(c_in, c_out, 3, padding=1, bias=False),
        "depthwise": lambda: minidnn.DepthwiseConv2d(c_in),
        "pointwise": lambda: minidnn.PointwiseConv2d(c_in, c_out),
        "batch norm": lambda: minidnn.BatchNorm2d(c_in),
        "prelu": lambda: minidnn.PReLU(c_in),
        "leaky relu": lambda: minidnn.LeakyReLU(0.1),
        "relu": lambda: minidnn.ReLU(),
        "max pool 2x2": lambda: minidnn.MaxPool2d(2),
        "max pool 3x3": lambda: minidnn.MaxPool2d(3, 2),
        "avg pool 2x2": lambda: minidnn.AvgPool2d(2),
        "global avg pool": lambda: minidnn.GlobalAvgPool2d(),
        "dropout": lambda: minidnn.Dropout(0.5),
        "linear": lambda: minidnn.Linear(c_in, c_out),
    }
    return layers[case.kind]()


@cache
def _action(case: OpCase, batch: int) -> Callable[[], object]:
    rng = np.random.default_rng(0)
    array = rng.standard_normal(case.input_shape(batch)).astype(np.float32)
    # The first layer of a network needs no gradient of its input.
    x = minidnn.Tensor(array, requires_grad=case.kind != "conv2d 5x5")
    if case.kind == "cross-entropy":
        labels = rng.integers(0, case.c_in, batch)
        loss = minidnn.CrossEntropyLoss(label_smoothing=SMOOTHING)

        def whole_loss() -> None:
            x.grad = None
            loss(x, labels).backward()

        return whole_loss
    layer = _layer(case)
    dy = rng.standard_normal(layer(x).shape).astype(np.float32)

    def action() -> None:
        x.grad = None
        for p in layer.parameters():
            p.grad = None
        layer(x).backward(dy)

    return action


def op(case: list[Any], batch: int) -> float:
    """Return the seconds of one forward and backward pass of a layer."""
    return seconds(_action(OpCase(*case), batch))


class _Training:
    """A QuickNet, its optimiser, and one batch to step on."""

    def __init__(self, batch: int) -> None:
        self.net = QuickNet(dropout=0.0, rng=np.random.default_rng(5))
        self.x, self.labels = pictures(batch)
        minidnn.fuse(self.net, self.x.shape)
        self.loss = minidnn.CrossEntropyLoss(label_smoothing=SMOOTHING)
        self.optimizer = minidnn.SGD(
            minidnn.decay_groups(self.net, WEIGHT_DECAY), LR, MOMENTUM, nesterov=True
        )

    def step(self) -> float:
        self.optimizer.zero_grad()
        loss: minidnn.Tensor = self.loss(self.net(minidnn.Tensor(self.x)), self.labels)
        loss.backward()
        self.optimizer.step()
        return loss.item()


_training: list[_Training] = []


def save(weights: str) -> None:
    """Write the weights both sides start from, in PyTorch's layout."""
    net = QuickNet(dropout=0.0, rng=np.random.default_rng(5))
    state = minidnn.to_torch_state_dict(net)
    save_file({name: np.ascontiguousarray(array) for name, array in state.items()}, weights)


def prepare(batch: int, steps: int) -> list[float]:
    """Start from the saved weights and return the losses of the first steps."""
    _training[:] = [_Training(batch)]
    return [_training[0].step() for _ in range(steps)]


def train(steps: int) -> float:
    """Return the seconds of one training step, averaged over some."""
    start = time.perf_counter()
    for _ in range(steps):
        _training[0].step()
    return (time.perf_counter() - start) / steps


def about() -> dict[str, Any]:
    """Return what this side runs on."""
    return {"minidnn": minidnn.__version__, "threads": num_threads(), "affinity": affinity()}


if __name__ == "__main__":
    serve({"op": op, "save": save, "prepare": prepare, "train": train, "about": about})
