"""Every rung of every ladder, on every case, against an independent float64 oracle."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from minidnn.errors import LayoutError, ShapeError
from minidnn.kernels.ladder import load_all
from tests.cases import Case, load_cases
from tests.closeness import assert_close

REGISTRY = load_all()
CASES = load_cases()

# How much larger the squares of what a rung adds up are than those of the products themselves.
# Winograd: an output sums 3 x 3 places of weights (1, 3/4, 3/4 of the squares a weight has, along
# each axis) with sums of 2 x 2 pixels, 4 * 2.5 ** 2 = 25 against 9; 3 for integer terms.
GROWTH = {"winograd": 3}


def _cast(value: Any, dtype: Any) -> Any:
    """Give float64 arrays the dtype under test; integers and settings stay."""
    if isinstance(value, np.ndarray) and value.dtype == np.float64:
        return value.astype(dtype, order="C")  # not ascontiguousarray: it turns () into (1,)
    return value


def _all(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def _params() -> list[Any]:
    """Float32 on every rung; float64 on the fastest alone, which keeps compile time down."""
    return [
        pytest.param(name, rung, dtype, case, id=f"{name}-{rung}-{np.dtype(dtype)}-{case.name}")
        for name, ladder in REGISTRY.items()
        for rung in ladder.rungs
        for dtype in ((np.float32, np.float64) if rung == ladder.fastest else (np.float32,))
        for case in CASES.get(name, [])
        if not (case.exact and dtype == np.float64)
    ]


def test_every_ladder_has_cases_and_every_case_a_ladder() -> None:
    assert set(REGISTRY) == set(CASES)


def test_a_rung_checks_its_arguments_as_its_ladder_does() -> None:
    x = np.zeros((2, 3, 4, 5), np.float32)
    with pytest.raises(ShapeError, match="slope"):
        REGISTRY["prelu.forward"]["fused"](x, np.zeros(3, np.float32))
    with pytest.raises(LayoutError, match="a: expected a C-contiguous array"):
        REGISTRY["gemm.nn"]["simd"](x.reshape(6, 20).T, np.zeros((6, 2), np.float32))


@pytest.mark.parametrize("rung", REGISTRY["max_pool.backward"].rungs)
def test_positions_outside_a_window_write_nowhere(rung: str) -> None:
    dy, argmax = np.ones((1, 2, 2, 1), np.float32), np.full((1, 2, 2, 1), 255, np.uint8)
    settings = {"size": (2, 2), "stride": (2, 2), "pads": (1, 0, 1, 0), "ceil_mode": False}
    backward = REGISTRY["max_pool.backward"][rung]
    assert not backward(dy, argmax, x_shape=(1, 3, 3, 1), **settings).any()
    argmax[:] = 0  # the padding, for the windows at the top and left
    assert backward(dy, argmax, x_shape=(1, 3, 3, 1), **settings).sum() == 1


@pytest.mark.parametrize(("name", "rung", "dtype", "case"), _params())
def test_rung_agrees_with_oracle(name: str, rung: str, dtype: Any, case: Case) -> None:
    args = case.args(np.random.default_rng(7))
    single = tuple(_cast(a, dtype) for a in args)
    # The oracle sees the rounded inputs, so that only the kernel's own rounding is judged.
    rounded = tuple(
        a.astype(np.float64) if isinstance(a, np.ndarray) and a.dtype == dtype else a
        for a in single
    )
    before = [a.copy() if isinstance(a, np.ndarray) else a for a in single]
    got = _all(REGISTRY[name][rung](*single, **case.settings))
    if case.in_place:
        assert got == (None,), "a kernel that works in place returns nothing"
        got = tuple(single[i] for i in case.in_place)
    want = _all(case.oracle(*rounded, **case.settings))
    assert len(got) == len(want)
    for i, (g, w) in enumerate(zip(got, want, strict=True)):
        # Masks and positions have nothing to round, 8-bit kernels one way to do so.
        if case.exact or np.asarray(w).dtype.kind in "iu":
            assert g.dtype == w.dtype
            assert np.array_equal(g, w)
            continue
        terms = case.terms * GROWTH.get(rung, 1)
        assert_close(g, np.asarray(w, np.float64), terms=terms, dtype=dtype, what=f"output {i}")
    for i, (kept, given) in enumerate(zip(before, single, strict=True)):
        if isinstance(given, np.ndarray) and i not in case.in_place:
            assert np.array_equal(kept, given, equal_nan=True), "the kernel wrote to its input"
