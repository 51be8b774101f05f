"""A NaN that goes into a kernel comes out of it, on every rung."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from minidnn.kernels.ladder import load_all
from tests.cases import Case, load_cases

REGISTRY = load_all()
CASES = load_cases()

# (ladder, position of the argument): why its NaN may stay inside.
SWALLOWED = {
    ("relu.backward", 1): "x only chooses; its NaN left through the forward pass",
    ("leaky_relu.backward", 1): "x only chooses; its NaN left through the forward pass",
}


def _params() -> list[Any]:
    found = []
    for name, ladder in REGISTRY.items():
        case = min(CASES[name], key=lambda case: abs(_size(case) - 200))
        for i, a in enumerate(case.args(np.random.default_rng(3))):
            if isinstance(a, np.ndarray) and a.dtype == np.float64 and (name, i) not in SWALLOWED:
                found += [
                    pytest.param(name, rung, case, i, id=f"{name}-{rung}-{case.name}-{i}")
                    for rung in ladder.rungs
                ]
    return found


def _size(case: Case) -> int:
    return sum(np.size(a) for a in case.args(np.random.default_rng(3)))


def _nan_comes_out(name: str, rung: str, case: Case, position: int) -> bool:
    args = [
        a.astype(np.float32, order="C") if getattr(a, "dtype", None) == np.float64 else a
        for a in case.args(np.random.default_rng(3))
    ]
    poisoned = args[position].reshape(-1)
    poisoned[poisoned.size // 2] = np.nan
    # Without the ladder's check, which refuses some NaNs at once.
    result = REGISTRY[name].rungs[rung](*args, **case.settings)
    outputs = [args[i] for i in case.in_place] if case.in_place else result
    if not isinstance(outputs, tuple | list):
        outputs = (outputs,)
    return any(np.isnan(y).any() for y in outputs if y.dtype.kind == "f")


@pytest.mark.parametrize(("name", "rung", "case", "position"), _params())
def test_nan_in_gives_nan_out(name: str, rung: str, case: Case, position: int) -> None:
    assert _nan_comes_out(name, rung, case, position)


@pytest.mark.parametrize("rung", ["naive", "numpy", "fused"])
def test_the_check_sees_a_nan_that_stays_inside(rung: str) -> None:
    case = next(case for case in CASES["relu.backward"] if case.name == "odd_c7")
    assert not _nan_comes_out("relu.backward", rung, case, 1)
