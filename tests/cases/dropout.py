"""Cases of dropout."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.cases import CASES, Case, drawn, signed
from tests.oracles import dropout as oracle

SHAPES = {"n1_c1": (1, 1), "odd": (3, 5, 7), "empty": (0, 5), "chunks": (5, 5000)}
SETTINGS: dict[str, dict[str, Any]] = {
    "half": {"p": 0.5, "seed": 3, "offset": 0},
    "little": {"p": 0.1, "seed": 2**63 - 5, "offset": 2**40 + 1},
    "none": {"p": 0.0, "seed": 0, "offset": 7},
    "all": {"p": 1.0, "seed": 9, "offset": 0},
}


def _backward(shape: tuple[int, ...]) -> Any:
    def args(rng: np.random.Generator) -> tuple[Any, ...]:
        return signed(rng, *shape), rng.integers(0, 2, shape).astype(np.uint8)

    return args


CASES["dropout.forward"] = [
    Case(f"{name}_{kind}", drawn(shape), oracle.dropout, terms=1, settings=settings)
    for name, shape in SHAPES.items()
    for kind, settings in SETTINGS.items()
]
CASES["dropout.backward"] = [
    Case(f"{name}_{p}", _backward(shape), oracle.dropout_backward, terms=1, settings={"p": p})
    for name, shape in SHAPES.items()
    for p in (0.0, 0.5, 0.1)
]
