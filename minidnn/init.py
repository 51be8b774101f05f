"""Initial weights: functions of a shape and a random generator, float32."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from minidnn.tensor import Array

_default = np.random.default_rng(0)


def manual_seed(seed: int) -> None:
    """Restart the generator that layers draw from when they are given none."""
    global _default
    _default = np.random.default_rng(seed)


def default_rng() -> np.random.Generator:
    """Return the generator that layers draw from when they are given none."""
    return _default


def normal(shape: Sequence[int], rng: np.random.Generator, *, std: float) -> Array:
    """Draw from N(0, std^2)."""
    return rng.standard_normal(tuple(shape), np.float32) * np.float32(std)


def kaiming_normal(
    shape: Sequence[int], rng: np.random.Generator, *, fan_in: int, slope: float = 0.0
) -> Array:
    """Draw from N(0, 2 / ((1 + slope^2) fan_in)) (He et al. 2015, eq. 15)."""
    return normal(shape, rng, std=math.sqrt(2.0 / ((1.0 + slope**2) * fan_in)))


def glorot_uniform(
    shape: Sequence[int], rng: np.random.Generator, *, fan_in: int, fan_out: int
) -> Array:
    """Draw from U(-a, a), a = sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio 2010, eq. 16)."""
    limit = math.sqrt(6.0 / (fan_in + fan_out))
    return rng.uniform(-limit, limit, tuple(shape)).astype(np.float32)


def kaiming_uniform(
    shape: Sequence[int], rng: np.random.Generator, *, fan_in: int, slope: float = 0.0
) -> Array:
    """Draw from U(-a, a), a = sqrt(6 / ((1 + slope^2) fan_in)): He's variance, other shape."""
    limit = math.sqrt(6.0 / ((1.0 + slope**2) * fan_in))
    return rng.uniform(-limit, limit, tuple(shape)).astype(np.float32)


def glorot_normal(
    shape: Sequence[int], rng: np.random.Generator, *, fan_in: int, fan_out: int
) -> Array:
    """Draw from N(0, 2 / (fan_in + fan_out)) (Glorot and Bengio 2010, eq. 12)."""
    return normal(shape, rng, std=math.sqrt(2.0 / (fan_in + fan_out)))
