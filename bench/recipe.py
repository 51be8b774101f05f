"""The training step that both sides of `bench.peers` make, as data."""

from __future__ import annotations

from typing import Any

import numpy as np

from bench.shapes import CLASSES, IMAGE

LR = 0.05
MOMENTUM = 0.9
WEIGHT_DECAY = 5e-4
SMOOTHING = 0.1


def decays(name: str) -> bool:
    """Tell by a parameter's name whether weight decay acts on it: full kernels and matrices."""
    return name.endswith(("stem.conv.weight", "pointwise.weight", "linear.weight"))


def pictures(batch: int) -> tuple[Any, Any]:
    """Return one batch: images (N, H, W, C) float32, labels (N,) int64."""
    rng = np.random.default_rng(11)
    shape = (batch, IMAGE.size, IMAGE.size, IMAGE.channels)
    return rng.standard_normal(shape).astype(np.float32), rng.integers(0, CLASSES, batch)
