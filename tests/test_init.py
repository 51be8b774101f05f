"""Initialisers have the variance and limits they promise, and repeat from a seed."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from minidnn import init

SHAPE = (3, 3, 40, 60)

# what draws, the standard deviation promised, the largest magnitude possible
DRAWS: dict[str, tuple[Callable[[np.random.Generator], Any], float, float]] = {
    "normal": (lambda rng: init.normal(SHAPE, rng, std=0.3), 0.3, math.inf),
    "kaiming_normal": (
        lambda rng: init.kaiming_normal(SHAPE, rng, fan_in=360, slope=0.25),
        math.sqrt(2 / (1.0625 * 360)),
        math.inf,
    ),
    "kaiming_uniform": (
        lambda rng: init.kaiming_uniform(SHAPE, rng, fan_in=360, slope=0.25),
        math.sqrt(2 / (1.0625 * 360)),
        math.sqrt(6 / (1.0625 * 360)),
    ),
    "glorot_normal": (
        lambda rng: init.glorot_normal(SHAPE, rng, fan_in=360, fan_out=540),
        math.sqrt(2 / 900),
        math.inf,
    ),
    "glorot_uniform": (
        lambda rng: init.glorot_uniform(SHAPE, rng, fan_in=360, fan_out=540),
        math.sqrt(2 / 900),
        math.sqrt(6 / 900),
    ),
}


@pytest.mark.parametrize("name", DRAWS)
def test_draws_have_the_promised_spread(name: str) -> None:
    draw, std, limit = DRAWS[name]
    weights = draw(np.random.default_rng(0))
    assert (weights.shape, weights.dtype) == (SHAPE, np.float32)
    assert weights.std() == pytest.approx(std, rel=0.02)
    assert abs(weights.mean()) < 0.02 * std
    assert np.abs(weights).max() <= np.float32(limit)
    if limit == math.inf:
        assert np.abs(weights).max() > 3 * std
    assert np.array_equal(weights, draw(np.random.default_rng(0)))
    assert not np.array_equal(weights, draw(np.random.default_rng(1)))


def test_the_default_generator_restarts() -> None:
    init.manual_seed(3)
    first = init.normal((4,), init.default_rng(), std=1.0)
    second = init.normal((4,), init.default_rng(), std=1.0)
    init.manual_seed(3)
    assert np.array_equal(init.normal((4,), init.default_rng(), std=1.0), first)
    assert not np.array_equal(first, second)
