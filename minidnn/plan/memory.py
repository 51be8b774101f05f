"""Room for values: those that live at the same time lie apart, others share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from minidnn.kernels import memory
from minidnn.tensor import Array

ALIGNMENT = 64


def aligned(size: int) -> Array:
    """Return so many bytes from a whole cache line on: a vector across two costs two accesses."""
    raw = memory.empty((size + ALIGNMENT,), np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + size]


class Life(NamedTuple):
    """From which step to which a value is needed, and how many bytes it has."""

    first: int
    last: int
    size: int


def arrange(lives: Mapping[int, Life]) -> tuple[dict[int, int], int]:
    """Find a place for every value, the largest first, each as low as it fits.

    Returns
    -------
    places : dict
        Value -> byte it begins at, on whole cache lines.
    size : int
        Bytes in all.
    """
    places: dict[int, int] = {}
    for value in sorted(lives, key=lambda v: (-lives[v].size, v)):
        life, at = lives[value], 0
        others = [
            (places[o], places[o] + lives[o].size)
            for o in places
            if lives[o].first <= life.last and life.first <= lives[o].last
        ]
        for start, end in sorted(others):
            if at + life.size <= start:
                break
            at = max(at, -(-end // ALIGNMENT) * ALIGNMENT)
        places[value] = at
    return places, max((places[v] + lives[v].size for v in lives), default=0)
