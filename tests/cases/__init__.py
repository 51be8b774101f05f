"""Small, awkward inputs for every ladder in `REGISTRY`, and the oracle each must agree with.

A file per family fills `CASES` with ``{ladder name: [Case, ...]}``.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Case:
    """One call of a ladder.

    Attributes
    ----------
    name : str
        Shows in the test's id.
    args : callable
        ``args(rng)`` returns the positional arguments, float arrays as float64; the test casts.
    oracle : callable
        Takes the same arguments (float64) and returns what every rung must return.
    terms : int
        How many values are summed into one element of the result, for the tolerance.
    settings : dict
        Keyword arguments, given to the ladder and the oracle alike.
    in_place : tuple of int
        Positions of the arguments the ladder writes instead of returning anything; the oracle
        returns what they must hold afterwards.
    exact : bool
        Integers, or float32 rounded in one fixed way: no float64, and every bit as the oracle's.
    """

    name: str
    args: Callable[[np.random.Generator], tuple[Any, ...]]
    oracle: Callable[..., Any]
    terms: int
    settings: dict[str, Any] = field(default_factory=dict)
    in_place: tuple[int, ...] = ()
    exact: bool = False


CASES: dict[str, list[Case]] = {}


def load_cases() -> dict[str, list[Case]]:
    """Import every family's file and return the filled `CASES`."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    return CASES


def signed(rng: np.random.Generator, *shape: int) -> Any:
    """Draw normal values with exact zeros among them; never constant, never all of one sign."""
    x = rng.standard_normal(shape)
    flat = x.reshape(-1)
    flat[:: max(1, flat.size // 7)] = 0.0
    return x


def drawn(*shapes: tuple[int, ...]) -> Callable[[np.random.Generator], tuple[Any, ...]]:
    """Return what draws one `signed` array per shape: the `args` of most cases."""
    return lambda rng: tuple(signed(rng, *shape) for shape in shapes)
