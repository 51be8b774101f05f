"""Winograd's formula is exact, its tiles stay on the map, and other shapes run simd."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

from minidnn.kernels import conv2d, jit
from minidnn.kernels.conv2d import winograd
from tests import guarded
from tests.guard_winograd import COUNT
from tests.processes import run

SAME: dict[str, Any] = {"pads": (1, 1, 1, 1)}
LADDERS = (conv2d.forward, conv2d.backward_input, conv2d.backward_weight)
# The matrices as the paper has them (Lavin and Gray 2015, s. 4.1).
B_T = np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]])
G = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])
A_T = np.array([[1, 1, 1, 0], [0, 1, -1, -1]])


def _drawn(*shape: int) -> Any:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def _calls(
    x: Any, w: Any, dy: Any, **settings: Any
) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    """Return arguments and settings for each of `LADDERS`."""
    return [
        ((x, w), settings),
        ((dy, w), {**settings, "size": x.shape[1:3]}),
        ((dy, x), {**settings, "kernel_size": w.shape[:2]}),
    ]


def test_the_formula_is_a_convolution() -> None:
    window, w = _drawn(4, 4).astype(np.float64), _drawn(3, 3).astype(np.float64)
    want = [[(window[i : i + 3, j : j + 3] * w).sum() for j in range(2)] for i in range(2)]
    got = A_T @ ((G @ w @ G.T) * (B_T @ window @ B_T.T)) @ A_T.T
    np.testing.assert_allclose(got, want, atol=1e-12)


def test_weights_are_laid_out_as_in_the_paper_and_their_gradient_is_the_transpose() -> None:
    w, du = _drawn(3, 3, 2, 5).astype(np.float64), _drawn(16, 2, 5).astype(np.float64)
    want = np.einsum("ik,klco,jl->ijco", G, w, G).reshape(16, 2, 5)
    np.testing.assert_allclose(winograd.spread_weights(w), want, atol=1e-12)
    back = np.einsum("ik,ijco,jl->klco", G, du.reshape(4, 4, 2, 5), G)
    np.testing.assert_allclose(winograd.gather_weights(du), back, atol=1e-12)


def test_one_tile_has_the_values_worked_out_by_hand() -> None:
    x = np.zeros((1, 4, 4, 1), np.float32)
    x[0, 1, 2] = 2  # met by w[1, 2], w[1, 1], w[0, 2], w[0, 1] in the four outputs
    w = np.arange(1, 10, dtype=np.float32).reshape(3, 3, 1, 1)
    y = conv2d.forward["winograd"](x, w)
    assert y.ravel().tolist() == [12, 10, 6, 4]


@pytest.mark.parametrize("at", range(3))
def test_other_shapes_and_float64_run_simd(at: int) -> None:
    odd: list[tuple[tuple[int, ...], tuple[int, ...], type, dict[str, Any]]] = [
        ((1, 5, 5, 16), (5, 5, 16, 16), np.float32, {}),
        ((1, 5, 5, 16), (3, 3, 16, 16), np.float32, {"stride": (2, 2)}),
        ((1, 5, 5, 16), (3, 3, 16, 16), np.float32, {"dilation": (2, 2)}),
        ((1, 5, 5, 32), (3, 3, 16, 32), np.float32, {"groups": 2}),
        ((1, 5, 5, 16), (3, 3, 16, 16), np.float64, {}),
    ]
    for x_shape, w_shape, dtype, settings in odd:
        x, w = _drawn(*x_shape).astype(dtype), _drawn(*w_shape).astype(dtype)
        dy = np.ones_like(conv2d.forward["simd"](x, w, **settings))
        args, given = _calls(x, w, dy, **settings)[at]
        got, want = (LADDERS[at][rung](*args, **given) for rung in ("winograd", "simd"))
        assert got.dtype == dtype
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("ladder", LADDERS, ids=lambda ladder: ladder.name)
def test_it_is_not_what_runs_by_default(ladder: Any) -> None:
    assert ladder.fastest == "simd"


def test_a_number_that_is_not_finite_spoils_its_tiles_and_no_others() -> None:
    x, w = _drawn(1, 8, 8, 16), _drawn(3, 3, 16, 16)
    x[0, 0, 0, 3] = np.inf
    y = conv2d.forward["winograd"](x, w, **SAME)
    assert not np.isfinite(y[0, :2, :2]).any()
    y[0, :2, :2] = 0
    assert np.isfinite(y).all()


@pytest.mark.skipif(jit.max_threads() < 2, reason="needs two threads")
@pytest.mark.parametrize("at", range(3))
def test_bits_do_not_depend_on_threads(at: int) -> None:
    x, w, dy = _drawn(5, 14, 13, 33), _drawn(3, 3, 33, 50), _drawn(5, 14, 13, 50)
    args, settings = _calls(x, w, dy, **SAME)[at]
    before, results = jit.num_threads(), []
    try:
        for threads in (1, 2):
            jit.set_num_threads(threads)
            results += [LADDERS[at]["winograd"](*args, **settings) for _ in range(2)]
    finally:
        jit.set_num_threads(before)
    for other in results[1:]:
        np.testing.assert_array_equal(results[0], other)


def test_a_gradient_summed_in_groups_of_tiles_is_the_same_up_to_rounding(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x, dy = _drawn(6, 12, 12, 16), _drawn(6, 12, 12, 32)
    settings: dict[str, Any] = {**SAME, "kernel_size": (3, 3)}
    whole = conv2d.backward_weight["winograd"](dy, x, **settings)
    monkeypatch.setattr(winograd, "GROUP", 1)  # 64 tiles at a time, and 24 at the end
    parts = conv2d.backward_weight["winograd"](dy, x, **settings)
    np.testing.assert_allclose(parts, whole, atol=2e-4)


@pytest.mark.skipif(not guarded.SUPPORTED, reason="needs mprotect")
def test_tiles_stay_inside_their_arrays() -> None:
    assert int(run(sys.executable, "-m", "tests.guard_winograd").stdout) == COUNT
