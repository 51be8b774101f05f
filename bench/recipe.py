"""The training step that all sides of `bench.peers` make, and its pictures, as data."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from bench.shapes import CLASSES, IMAGE

LR = 0.05
MOMENTUM = 0.9
WEIGHT_DECAY = 5e-4
SMOOTHING = 0.1

PICTURES = 50_000  # as many as CIFAR-10 has for training: 147 MiB
BATCHES = 4
CALIBRATION = 300


def decays(name: str) -> bool:
    """Tell by a parameter's name whether weight decay acts on it: full kernels and matrices."""
    return name.endswith(("conv.weight", "pointwise.weight", "linear.weight"))


class Pictures(NamedTuple):
    """A data set as large as CIFAR-10, and the batches that are cut from its beginning."""

    images: Any
    labels: Any
    batches: list[tuple[Any, Any]]


def pictures(batch: int) -> Pictures:
    """Draw the data set; batches are (N, H, W, C) float32 and labels (N,) int64.

    Every side keeps the whole of it in memory, as training does.
    """
    rng = np.random.default_rng(11)
    shape = (PICTURES, IMAGE.size, IMAGE.size, IMAGE.channels)
    images = rng.integers(0, 256, shape, np.uint8)
    labels = rng.integers(0, CLASSES, PICTURES)
    batches = []
    for first in range(0, BATCHES * batch, batch):
        part = images[first : first + batch].astype(np.float32)
        batches.append(((part - 127.5) / 73.9, labels[first : first + batch]))
    return Pictures(images, labels, batches)


def calibration_pictures() -> Any:
    """Return the pictures that all sides quantise with, (N, H, W, C) float32; none is timed."""
    return pictures(CALIBRATION).batches[-1][0]
