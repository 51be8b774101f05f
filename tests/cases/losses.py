"""Cases of softmax cross-entropy."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.cases import CASES, Case, signed
from tests.oracles import losses as oracle

# name: (rows, classes, size of the logits, label smoothing)
ROWS = {
    "n1_one_class": (1, 1, 1.0, 0.0),
    "n1_c10": (1, 10, 1.0, 0.1),
    "c7": (5, 7, 3.0, 0.0),
    "c33": (17, 33, 3.0, 0.2),
    "c1030": (3, 1030, 3.0, 0.1),
    "c64_large": (4, 64, 30.0, 0.1),
    "chunks": (700, 10, 2.0, 0.1),
    "uniform_target": (4, 5, 2.0, 1.0),
    "large": (6, 10, 1e4, 0.0),
    "large_smooth": (6, 10, 1e4, 0.1),
}


def _forward(n: int, classes: int, size: float) -> Any:
    def args(rng: np.random.Generator) -> tuple[Any, ...]:
        return signed(rng, n, classes) * size, rng.integers(0, classes, n)

    return args


def _impossible(classes: int) -> Any:
    """One class that cannot be (logit -inf) and is no row's label."""

    def args(rng: np.random.Generator) -> tuple[Any, ...]:
        logits = signed(rng, 5, classes)
        logits[:, 3] = -np.inf
        return logits, np.array([0, 1, 2, 4, 6])

    return args


def _backward(n: int, classes: int, size: float) -> Any:
    def args(rng: np.random.Generator) -> tuple[Any, ...]:
        logits, labels = _forward(n, classes, size)(rng)
        _, probs = oracle.softmax_xent(logits, labels, label_smoothing=0.0)
        return np.array(-1.5), probs, labels

    return args


CASES["softmax_xent.forward"] = [
    Case(
        name,
        _forward(n, classes, size),
        oracle.softmax_xent,
        terms=classes,
        settings={"label_smoothing": smoothing},
    )
    for name, (n, classes, size, smoothing) in ROWS.items()
] + [
    Case(
        f"impossible_{classes}",
        _impossible(classes),
        oracle.softmax_xent,
        classes,
        {"label_smoothing": 0.0},
    )
    for classes in (7, 35)
]
CASES["softmax_xent.backward"] = [
    Case(
        name,
        _backward(n, classes, size),
        oracle.softmax_xent_backward,
        terms=classes,
        settings={"label_smoothing": smoothing},
    )
    for name, (n, classes, size, smoothing) in ROWS.items()
]
