"""minidnn's side of `bench.peers`: ``module`` as trained, ``plan`` compiled, or ``int8``."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

import minidnn
from bench import recipe
from bench.shapes import CLASSES
from bench.side import latencies, seconds, serve
from minidnn.fusion import fuse
from minidnn.losses import CrossEntropyLoss
from minidnn.measure.machine import affinity, peak_memory
from minidnn.models.plain_cnn import PlainCNN
from minidnn.models.quicknet import QuickNet
from minidnn.optim import SGD, Optimizer, decay_groups
from minidnn.tensor import Tensor, no_grad
from minidnn.threads import num_threads
from minidnn.torch_state import load_torch_state_dict, to_torch_state_dict

NETWORKS: dict[str, Callable[..., minidnn.Module]] = {"quicknet": QuickNet, "plain_cnn": PlainCNN}
IMPORTED = peak_memory()


def save(network: str, weights: str) -> None:
    """Write the weights all sides start from, in PyTorch's layout, with running statistics."""
    rng = np.random.default_rng(5)
    net = NETWORKS[network](num_classes=CLASSES, dropout=0.0, rng=rng)
    state = to_torch_state_dict(net)
    for name, array in state.items():
        if name.endswith("running_mean"):
            array[...] = rng.normal(0, 0.1, array.shape)
        elif name.endswith("running_var"):
            array[...] = rng.uniform(0.5, 1.5, array.shape)
    save_file(state, weights)


class _Work:
    """A network, the data set, and how to take one step of training or one forward pass."""

    def __init__(self, how: str, what: str, network: str, weights: str, batch: int) -> None:
        self.data = recipe.pictures(batch)
        self.net = NETWORKS[network](num_classes=CLASSES, dropout=0.0)
        load_torch_state_dict(self.net, load_file(weights))
        self.steps = 0
        self.optimizers: list[Optimizer] = []
        self.run = self.infer if what == "infer" else self.train
        if what == "infer":
            self.forward = _forward(how, self.net.eval(), self.data.batches[0][0].shape)
            return
        fuse(self.net, (2, *self.data.images.shape[1:]))
        self.loss = CrossEntropyLoss(label_smoothing=recipe.SMOOTHING)
        groups = decay_groups(self.net, recipe.WEIGHT_DECAY)
        self.optimizers.append(SGD(groups, recipe.LR, recipe.MOMENTUM, nesterov=True))

    def warm_up(self) -> None:
        """Compile on all cores, as every way into minidnn does."""
        minidnn.warm_up(self.run, self.net, *self.optimizers)
        self.steps = 0

    def next_batch(self) -> tuple[Any, Any]:
        self.steps += 1
        return self.data.batches[(self.steps - 1) % recipe.BATCHES]

    def train(self) -> float:
        images, labels = self.next_batch()
        (optimizer,) = self.optimizers
        optimizer.zero_grad()
        loss: Tensor = self.loss(self.net(Tensor(images)), labels)
        loss.backward()
        optimizer.step()
        return loss.item()

    def infer(self) -> Any:
        return self.forward(self.next_batch()[0]).tolist()


def _forward(how: str, net: minidnn.Module, shape: tuple[int, ...]) -> Callable[[Any], Any]:
    """Return what turns pictures into logits, arrays both."""
    if how == "plan":
        plan: Callable[[Any], Any] = minidnn.compile(net, input_shape=shape)
        return plan
    if how == "int8":
        pictures = recipe.calibration_pictures()
        quantised: Callable[[Any], Any] = minidnn.quantize(net, pictures, input_shape=shape)
        return quantised

    def module(images: Any) -> Any:
        with no_grad():
            return net(Tensor(images)).data

    return module


_work: list[_Work] = []


def first(**arguments: Any) -> Any:
    """Do the first step; return its loss, or the first batch's logits."""
    _work[:] = [_Work(**arguments)]
    _work[0].warm_up()
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
        "threads": num_threads(),
        "affinity": affinity(),
        "imported_memory": IMPORTED,
        "peak_memory": peak_memory(),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("how", choices=["module", "plan", "int8"])
    serve(
        {
            "save": save,
            "first": partial(first, how=parser.parse_args().how),
            "more": more,
            "turn": turn,
            "latencies": lambda **pace: latencies(_work[0].run, **pace),
            "about": about,
        }
    )
