"""Matrix products: awkward arrays give a clear error or the right answer; epilogues are exact."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from minidnn.kernels import gemm, linear, pointwise
from minidnn.kernels.checks import DTypeError, LayoutError, ShapeError
from minidnn.kernels.ladder import Ladder
from minidnn.kernels.tile import TILE_ROWS

PRODUCTS: dict[str, Ladder[..., Any]] = {
    ladder.name: ladder
    for ladder in (
        gemm.nn,
        gemm.nt,
        gemm.tn,
        linear.forward,
        linear.backward_input,
        linear.backward_weight,
        pointwise.forward,
        pointwise.backward_input,
        pointwise.backward_weight,
        pointwise.forward_moments,
        pointwise.forward_bias_prelu,
    )
}


def _arguments(name: str, size: int = 36) -> list[Any]:
    """Draw square operands, which fit every product, and vectors where one wants them."""
    rng = np.random.default_rng(11)
    args = [rng.standard_normal((size, size)).astype(np.float32) for _ in range(2)]
    if name.endswith("bias_prelu"):
        args += [rng.standard_normal(size).astype(np.float32) for _ in range(2)]
    return args


def _first(result: Any) -> Any:
    return result[0] if isinstance(result, tuple) else result


def _misaligned(a: Any) -> Any:
    """Return a copy that starts one byte behind a multiple of four."""
    raw = np.empty(a.nbytes + 8, np.uint8)
    start = -raw.ctypes.data % 4 + 1
    copy: Any = np.ndarray(a.shape, a.dtype, raw, offset=start)
    copy[...] = a
    return copy


@pytest.mark.parametrize("name", PRODUCTS)
def test_a_view_that_is_not_contiguous_is_an_error_that_says_so(name: str) -> None:
    for i, given in enumerate(_arguments(name)):
        args = _arguments(name)
        args[i] = np.repeat(given, 2, axis=-1)[..., ::2]
        with pytest.raises(LayoutError, match="ascontiguousarray"):
            PRODUCTS[name](*args)


@pytest.mark.parametrize("name", PRODUCTS)
def test_a_misaligned_array_is_an_error_that_says_so(name: str) -> None:
    for i, given in enumerate(_arguments(name)):
        args = _arguments(name)
        args[i] = _misaligned(given)
        with pytest.raises(LayoutError, match="aligned"):
            PRODUCTS[name](*args)


@pytest.mark.parametrize("name", PRODUCTS)
def test_other_numbers_than_floats_and_mixed_ones_are_errors(name: str) -> None:
    for wrong in (np.int32, np.float16, np.float64):
        args = _arguments(name)
        args[1] = args[1].astype(wrong)
        with pytest.raises(DTypeError):
            PRODUCTS[name](*args)
    with pytest.raises(DTypeError):
        PRODUCTS[name](_arguments(name)[0].astype(">f4"), *_arguments(name)[1:])


@pytest.mark.parametrize("name", PRODUCTS)
def test_read_only_operands_are_read(name: str) -> None:
    args = _arguments(name)
    want = _first(PRODUCTS[name](*args))
    for a in args:
        a.flags.writeable = False
    assert np.array_equal(_first(PRODUCTS[name](*args)), want)


@pytest.mark.parametrize("name", PRODUCTS)
def test_the_same_array_twice_is_right(name: str) -> None:
    args = _arguments(name)
    args[1] = args[0]
    apart = [a.copy() for a in args]
    assert np.array_equal(_first(PRODUCTS[name](*args)), _first(PRODUCTS[name](*apart)))


@pytest.mark.parametrize("rung", gemm.nn.rungs)
@pytest.mark.parametrize("shape", [(0, 3, 4), (3, 0, 4), (3, 4, 0), (0, 0, 0)])
def test_empty_operands_give_empty_results_or_zeros(rung: str, shape: tuple[int, ...]) -> None:
    m, k, n = shape
    operands: list[tuple[Ladder[..., Any], tuple[int, ...], tuple[int, ...]]] = [
        (gemm.nn, (m, k), (k, n)),
        (gemm.nt, (m, k), (n, k)),
        (gemm.tn, (k, m), (k, n)),
    ]
    for ladder, a, b in operands:
        y = ladder[rung](np.ones(a, np.float32), np.ones(b, np.float32))
        assert y.shape == (m, n)
        assert not y.any()


@pytest.mark.parametrize("product", [pointwise.forward, linear.forward, pointwise.forward_moments])
def test_no_rows_at_all_is_an_error_for_a_layer(product: Callable[..., Any]) -> None:
    with pytest.raises(ShapeError, match="at least one row"):
        product(np.ones((0, 3), np.float32), np.ones((3, 3), np.float32))


def test_statistics_of_a_product_far_from_zero_lose_nothing() -> None:
    rng = np.random.default_rng(2)
    x = rng.standard_normal((100 * TILE_ROWS + 5, 8)).astype(np.float32)
    w = rng.standard_normal((8, 40)).astype(np.float32)
    x[:, 0], w[0] = 1, 3000
    y, mean, var = pointwise.forward_moments["simd"](x, w)
    exact = y.astype(np.float64)
    assert (exact.mean(axis=0) > 500 * exact.std(axis=0)).all()
    np.testing.assert_allclose(mean, exact.mean(axis=0), rtol=1e-7)
    np.testing.assert_allclose(var, exact.var(axis=0), rtol=1e-5)


def test_a_strange_first_row_does_not_spoil_the_statistics() -> None:
    x = np.random.default_rng(2).standard_normal((5000, 8)).astype(np.float32)
    w = np.eye(8, 40, dtype=np.float32)
    x[0] = 1e4
    y, mean, var = pointwise.forward_moments["simd"](x, w)
    exact = y.astype(np.float64)
    assert (np.abs(mean - exact.mean(axis=0)) <= 1e-6 * exact.std(axis=0)).all()
    np.testing.assert_allclose(var, exact.var(axis=0), rtol=1e-4)


def test_epilogues_give_the_bits_of_the_product() -> None:
    x, w, b, slope = _arguments("bias_prelu", 70)
    y = pointwise.forward["simd"](x, w)
    assert np.array_equal(pointwise.forward_moments["simd"](x, w)[0], y)
    y += b
    want = np.where(y > 0, y, y * slope)
    assert np.array_equal(pointwise.forward_bias_prelu["simd"](x, w, b, slope), want)


def test_nan_and_infinity_come_out_of_epilogues() -> None:
    x, w, b, slope = _arguments("bias_prelu", 20)
    x[3, 4], w[5, 6] = np.nan, np.inf
    y, mean, var = pointwise.forward_moments["simd"](x, w)
    assert np.isnan(y[3]).all()
    assert np.isnan(mean).all()
    assert np.isnan(var).all()
    activated = pointwise.forward_bias_prelu["simd"](x, w, b, slope)
    assert np.array_equal(np.isnan(activated), np.isnan(y))
