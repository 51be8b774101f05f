"""PyTorch's side of `bench.peers`: ``eager`` or ``compile``, ``nchw`` or ``channels_last``.

Float32. What a careful user would write: no gradients kept in inference, the fused optimiser,
gradients set to None, and `torch.compile` told that shapes stay what they are.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from bench import recipe
from bench.side import seconds, serve
from bench.torch_layouts import images_to_torch, weights_channels_last
from minidnn.measure.machine import affinity, peak_memory
from tests.torch_models import plain_cnn, quicknet

NETWORKS: dict[str, Callable[[], Any]] = {"quicknet": quicknet, "plain_cnn": plain_cnn}
IMPORTED = peak_memory()


class _Work:
    """A network, the data set, and how to take one step of training or one forward pass."""

    def __init__(
        self, how: str, layout: str, what: str, network: str, weights: str, batch: int
    ) -> None:
        self.data = recipe.pictures(batch)
        self.batches = [
            (images_to_torch(images, layout), torch.from_numpy(labels))
            for images, labels in self.data.batches
        ]
        self.data.batches.clear()  # in NCHW they were copied
        self.net = NETWORKS[network]()
        self.net.load_state_dict(load_file(weights))
        if layout == "channels_last":
            weights_channels_last(self.net)
        self.called = torch.compile(self.net, dynamic=False) if how == "compile" else self.net
        self.steps = 0
        self.run = self.infer if what == "infer" else self.train
        if what == "infer":
            self.net.eval()
            return
        self.loss = nn.CrossEntropyLoss(label_smoothing=recipe.SMOOTHING)
        named = list(self.net.named_parameters())
        groups = [
            {
                "params": [p for n, p in named if recipe.decays(n)],
                "weight_decay": recipe.WEIGHT_DECAY,
            },
            {"params": [p for n, p in named if not recipe.decays(n)], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.SGD(
            groups, lr=recipe.LR, momentum=recipe.MOMENTUM, nesterov=True, fused=True
        )

    def next_batch(self) -> tuple[torch.Tensor, torch.Tensor]:
        self.steps += 1
        return self.batches[(self.steps - 1) % recipe.BATCHES]

    def train(self) -> float:
        images, labels = self.next_batch()
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.loss(self.called(images), labels)
        loss.backward()
        self.optimizer.step()
        return float(loss.item())

    def infer(self) -> Any:
        with torch.inference_mode():
            return self.called(self.next_batch()[0]).tolist()


_work: list[_Work] = []


def first(**arguments: Any) -> Any:
    """Do the first step; return its loss, or the first batch's logits."""
    _work[:] = [_Work(**arguments)]
    return _work[0].run()


def more(steps: int) -> list[Any]:
    """Return the losses or logits of further steps."""
    return [_work[0].run() for _ in range(steps)]


def turn(at_least: float) -> float:
    """Return the seconds of one step, averaged over some."""
    return seconds(_work[0].run, at_least)


def about() -> dict[str, Any]:
    """Return what this side runs on, and its memory in MiB."""
    return {
        "threads": torch.get_num_threads(),
        "affinity": affinity(),
        "imported_memory": IMPORTED,
        "peak_memory": peak_memory(),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("how", choices=["eager", "compile"])
    parser.add_argument("layout", choices=["nchw", "channels_last"])
    parsed = parser.parse_args()
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    start = partial(first, how=parsed.how, layout=parsed.layout)
    serve({"first": start, "more": more, "turn": turn, "about": about})
