"""PyTorch's side: eager, float32, channels_last."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn

from bench.op_cases import OpCase
from bench.recipe import LR, MOMENTUM, SMOOTHING, WEIGHT_DECAY, decays, pictures
from bench.side import affinity, seconds, serve
from tests.torch_models import quicknet

torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


def _layer(case: OpCase) -> nn.Module:
    c_in, c_out = case.c_in, case.c_out
    layers: dict[str, Callable[[], nn.Module]] = {
        "conv2d 5x5": lambda: nn.Conv2d(c_in, c_out, 5, bias=False),
        "conv2d 3x3": lambda: nn.Conv2d(c_in, c_out, 3, padding=1, bias=False),
        "depthwise": lambda: nn.Conv2d(c_in, c_in, 3, padding=1, groups=c_in, bias=False),
        "pointwise": lambda: nn.Conv2d(c_in, c_out, 1, bias=False),
        "batch norm": lambda: nn.BatchNorm2d(c_in),
        "prelu": lambda: nn.PReLU(c_in),
        "leaky relu": lambda: nn.LeakyReLU(0.1),
        "relu": lambda: nn.ReLU(),
        "max pool 2x2": lambda: nn.MaxPool2d(2),
        "max pool 3x3": lambda: nn.MaxPool2d(3, 2),
        "avg pool 2x2": lambda: nn.AvgPool2d(2),
        "global avg pool": lambda: nn.AdaptiveAvgPool2d(1),
        "dropout": lambda: nn.Dropout(0.5),
        "linear": lambda: nn.Linear(c_in, c_out),
    }
    return _weights_channels_last(layers[case.kind]())


def _weights_channels_last(net: nn.Module) -> nn.Module:
    """Do what ``net.to(memory_format=torch.channels_last)`` does; its types lack that argument."""
    for p in net.parameters():
        if p.ndim == 4:
            p.data = p.data.contiguous(memory_format=torch.channels_last)
    return net


def _channels_last(array: Any) -> torch.Tensor:
    """NHWC array -> NCHW tensor on the same memory, which torch calls channels_last."""
    x = torch.from_numpy(array)
    return x.permute(0, 3, 1, 2) if x.ndim == 4 else x


@cache
def _action(case: OpCase, batch: int) -> Callable[[], object]:
    rng = np.random.default_rng(0)
    array = rng.standard_normal(case.input_shape(batch)).astype(np.float32)
    # The first layer of a network needs no gradient of its input.
    x = _channels_last(array).requires_grad_(case.kind != "conv2d 5x5")
    if case.kind == "cross-entropy":
        labels = torch.from_numpy(rng.integers(0, case.c_in, batch))
        loss = nn.CrossEntropyLoss(label_smoothing=SMOOTHING)

        def whole_loss() -> None:
            x.grad = None
            loss(x, labels).backward()

        return whole_loss
    layer = _layer(case)
    dy = torch.randn_like(layer(x))

    def action() -> None:
        x.grad = None
        layer.zero_grad(set_to_none=True)
        layer(x).backward(dy)

    return action


def op(case: list[Any], batch: int) -> float:
    """Return the seconds of one forward and backward pass of a layer."""
    return seconds(_action(OpCase(*case), batch))


class _Training:
    """A QuickNet, its optimiser, and one batch to step on."""

    def __init__(self, weights: str, batch: int) -> None:
        net = quicknet()
        net.load_state_dict(load_file(weights))
        self.net = _weights_channels_last(net)
        images, labels = pictures(batch)
        self.x, self.labels = _channels_last(images), torch.from_numpy(labels)
        self.loss = nn.CrossEntropyLoss(label_smoothing=SMOOTHING)
        named = list(self.net.named_parameters())
        groups = [
            {"params": [p for n, p in named if decays(n)], "weight_decay": WEIGHT_DECAY},
            {"params": [p for n, p in named if not decays(n)], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.SGD(groups, lr=LR, momentum=MOMENTUM, nesterov=True)

    def step(self) -> float:
        self.optimizer.zero_grad()
        loss = self.loss(self.net(self.x), self.labels)
        loss.backward()
        self.optimizer.step()
        return float(loss.item())


_training: list[_Training] = []


def prepare(weights: str, batch: int, steps: int) -> list[float]:
    """Start from given weights and return the losses of the first steps."""
    _training[:] = [_Training(weights, batch)]
    return [_training[0].step() for _ in range(steps)]


def train(steps: int) -> float:
    """Return the seconds of one training step, averaged over some."""
    start = time.perf_counter()
    for _ in range(steps):
        _training[0].step()
    return (time.perf_counter() - start) / steps


def about() -> dict[str, Any]:
    """Return what this side runs on."""
    return {"torch": torch.__version__, "threads": torch.get_num_threads(), "affinity": affinity()}


if __name__ == "__main__":
    serve({"op": op, "prepare": prepare, "train": train, "about": about})
