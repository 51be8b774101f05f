"""Cases of fake quantisation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.cases import CASES, Case, signed
from tests.oracles import fake_quantize as oracle

SHAPES = {"one": (1,), "odd": (2, 3, 5, 7), "rows": (5, 33), "empty": (0, 4), "chunks": (40, 1000)}


def _wide(shape: tuple[int, ...], scale: float) -> Callable[[np.random.Generator], Any]:
    """Draw numbers that leave the range on both sides, halves of a step and infinities."""

    def args(rng: np.random.Generator) -> tuple[Any, ...]:
        x = 120 * scale * signed(rng, *shape)
        flat = x.reshape(-1)
        halves = flat[3::4]
        halves[:] = (np.rint(halves / scale) + 0.5) * scale
        flat[5:6], flat[6:7] = -np.inf, np.inf
        return (x,)

    return args


CASES["fake_quantize.forward"] = [
    Case(
        f"{name}_{zero}",
        _wide(shape, scale) if name != "one" else lambda rng: (rng.standard_normal(1),),
        oracle.forward,
        terms=1,
        settings={"scale": scale, "zero": zero},
        exact=True,
    )
    for (name, shape), scale, zero in zip(
        SHAPES.items(), (0.01, 0.25, 3.7, 1.0, 0.03), (7, 0, 255, 128, 100), strict=True
    )
]


def _gradient(shape: tuple[int, ...]) -> Callable[[np.random.Generator], Any]:
    def args(rng: np.random.Generator) -> tuple[Any, ...]:
        inside = rng.integers(0, 2, shape).astype(np.uint8)
        inside.reshape(-1)[inside.size // 2 : inside.size // 2 + 1] = 1
        return signed(rng, *shape), inside

    return args


CASES["fake_quantize.backward"] = [
    Case(name, _gradient(shape), oracle.backward, terms=1) for name, shape in SHAPES.items()
]
