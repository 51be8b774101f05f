"""Cases of the optimiser kernels: they write to their arguments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.cases import CASES, Case, drawn, signed
from tests.oracles import optim as oracle

SIZES = (1, 7, 33, 70_001)


def _state(n: int, squares: int) -> Callable[[np.random.Generator], tuple[Any, ...]]:
    """Draw w, g and two state arrays; the one at index `squares` holds no negative numbers."""

    def args(rng: np.random.Generator) -> tuple[Any, ...]:
        arrays = [signed(rng, n) for _ in range(4)]
        arrays[squares] = np.square(arrays[squares]) + 0.1
        return tuple(arrays)

    return args


SGD = {
    "plain": {"lr": 0.1, "momentum": 0.0, "nesterov": False, "weight_decay": 0.0},
    "momentum": {"lr": 0.1, "momentum": 0.9, "nesterov": False, "weight_decay": 5e-2},
    "nesterov": {"lr": 0.3, "momentum": 0.9, "nesterov": True, "weight_decay": 5e-2},
}
CASES["sgd.step"] = [
    Case(f"{name}_{n}", drawn((n,), (n,), (n,)), oracle.sgd, 4, settings, in_place=(0, 2))
    for name, settings in SGD.items()
    for n in SIZES
]

_BETAS = {"beta1": 0.9, "beta2": 0.99, "eps": 1e-6}
ADAM = {
    "plain_first": {"lr": 0.1, "weight_decay": 0.0, "decoupled": False, "t": 1, **_BETAS},
    "coupled": {"lr": 0.1, "weight_decay": 0.1, "decoupled": False, "t": 5, **_BETAS},
    "decoupled": {"lr": 0.1, "weight_decay": 0.1, "decoupled": True, "t": 5, **_BETAS},
}
CASES["adam.step"] = [
    Case(f"{name}_{n}", _state(n, squares=3), oracle.adam, 16, settings, in_place=(0, 2, 3))
    for name, settings in ADAM.items()
    for n in SIZES
]

RMSPROP = {
    "plain": {"lr": 0.1, "alpha": 0.9, "eps": 1e-6, "momentum": 0.0, "weight_decay": 0.0},
    "momentum": {"lr": 0.1, "alpha": 0.99, "eps": 1e-6, "momentum": 0.9, "weight_decay": 0.1},
}
CASES["rmsprop.step"] = [
    Case(f"{name}_{n}", _state(n, squares=2), oracle.rmsprop, 16, settings, in_place=(0, 2, 3))
    for name, settings in RMSPROP.items()
    for n in SIZES
]

CASES["square_sum.forward"] = [
    Case(f"n{n}", drawn((n,)), oracle.square_sum, terms=n) for n in SIZES
]
