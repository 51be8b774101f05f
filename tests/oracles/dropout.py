"""Dropout with a mask drawn by SplitMix64 in Python's own integers."""

from __future__ import annotations

from typing import Any

import numpy as np

MASK = 2**64 - 1
GOLDEN = 0x9E3779B97F4A7C15


def _mix(z: int) -> int:
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & MASK
    z = (z ^ z >> 27) * 0x94D049BB133111EB & MASK
    return z ^ z >> 31


def uniform(seed: int, counter: int) -> float:
    """Number `counter` of the stream of `seed`, in [0, 1)."""
    start = _mix(seed + GOLDEN & MASK)
    return (_mix(start + (counter + 1) * GOLDEN & MASK) >> 11) / 2**53


def dropout(x: Any, *, p: float, seed: int, offset: int) -> Any:
    """Output and mask."""
    drawn = [uniform(seed, offset + i) for i in range(x.size)]
    keep = (np.array(drawn).reshape(x.shape) >= p).astype(np.uint8)
    return np.where(keep, x / max(1 - p, 1e-300), 0), keep


def dropout_backward(dy: Any, keep: Any, *, p: float) -> Any:
    """The same mask and factor."""
    return np.where(keep, dy / max(1 - p, 1e-300), 0)
