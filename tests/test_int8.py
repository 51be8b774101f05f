"""8-bit arithmetic: packing, quantised weights and biases, bounds, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from minidnn.errors import DTypeError, InputError, LayoutError, ShapeError
from minidnn.kernels import (
    int8,
    int8_add,
    int8_conv2d,
    int8_depthwise,
    int8_gemm,
    int8_global_avg_pool,
    int8_pointwise,
    quantize,
    simd,
)
from minidnn.kernels.int8 import pack, unpack
from minidnn.kernels.ladder import load_all
from tests.cases import load_cases
from tests.cases.int8 import factors

EIGHT_BIT = [name for name in load_all() if name.startswith("int8_")]


@pytest.mark.parametrize("k", [1, 2, 3, 4, 5, 7, 8, 33])
@pytest.mark.parametrize("n", [1, 31, 32, 65])
def test_unpacked_weights_are_those_that_were_packed(k: int, n: int) -> None:
    w = np.random.default_rng(k * n).integers(-127, 128, (k, n)).astype(np.int8)
    panels = pack(w)
    assert panels.shape == (-(-n // 32), -(-k // 4), 32, 4)
    assert panels.flags.c_contiguous
    assert np.array_equal(unpack(panels, k, n), w)
    # What is not a weight is zero: it meets codes of other numbers.
    assert np.abs(panels.astype(int)).sum() == np.abs(w.astype(int)).sum()


def test_weights_keep_within_half_a_step_and_use_the_whole_range() -> None:
    w = np.random.default_rng(0).standard_normal((3, 3, 7)).astype(np.float32)
    w[..., 2] = 0
    integers, scales = int8.quantise_weights(w)
    assert integers.dtype == np.int8
    assert scales.dtype == np.float32
    largest = np.abs(integers.astype(int)).max(axis=(0, 1))
    assert largest.tolist() == [127, 127, 0, 127, 127, 127, 127]
    assert scales[2] == 1
    assert (np.abs(integers * scales.astype(np.float64) - w) <= 0.5001 * scales).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_refused(bad: float) -> None:
    w = np.ones((4, 3), np.float32)
    w[1, 2] = bad
    with pytest.raises(InputError, match="finite"):
        int8.quantise_weights(w)


def test_tiny_weights_count_as_zero() -> None:
    integers, scales = int8.quantise_weights(np.full((2, 1), 1e-40, np.float32))
    assert not integers.any()
    assert scales.tolist() == [1.0]


def test_the_bias_holds_the_zero_point() -> None:
    rng = np.random.default_rng(1)
    a = rng.integers(0, 256, (5, 9), dtype=np.uint8)
    w = rng.integers(-127, 128, (9, 4)).astype(np.int8)
    real, scales = rng.standard_normal(4), np.full(4, 0.01)
    bias = int8.quantise_bias(real, w, 77, scales)
    got = a.astype(np.int64) @ w + bias
    want = (a.astype(np.int64) - 77) @ w.astype(np.int64) + np.rint(real / scales)
    assert np.array_equal(got, want)


@pytest.mark.parametrize(
    ("k", "bias", "fits"),
    [(66_311, 0.0, True), (66_312, 0.0, False), (4, 3e9, False), (4, np.nan, False)],
)
def test_sums_that_could_leave_int32_are_refused(k: int, bias: float, fits: bool) -> None:
    weights, scales = np.full((k, 1), 127, np.int8), np.ones(1)
    if fits:
        assert int8.quantise_bias(np.array([bias]), weights, 0, scales)[0] == bias
        return
    with pytest.raises(InputError, match=r"channel 0.*range of int32"):
        int8.quantise_bias(np.array([bias]), weights, 0, scales)


def test_bounds_are_reached_by_the_worst_inputs() -> None:
    w = np.random.default_rng(2).integers(-127, 128, (50, 3)).astype(np.int8)
    bias = np.array([5, -7, 0], np.int32)
    low, high = int8.accumulator_bounds(bias, w)
    for c in range(3):
        worst = np.where(w[:, c] > 0, 255, 0)
        assert high[c] == worst @ w[:, c].astype(int) + bias[c]
        assert low[c] == (255 - worst) @ w[:, c].astype(int) + bias[c]


@pytest.mark.parametrize("name", EIGHT_BIT)
def test_every_rung_gives_the_same_bits_as_numpy_beyond_the_cases(name: str) -> None:
    ladder = load_all()[name]
    for case in load_cases()[name]:
        args = case.args(np.random.default_rng(99))
        want = ladder["numpy"](*args, **case.settings)
        for rung in ladder.rungs:
            got = ladder[rung](*args, **case.settings)
            assert got.dtype == want.dtype
            assert got.tobytes() == want.tobytes(), (rung, case.name)


@pytest.mark.parametrize("rung", int8_gemm.forward.rungs)
def test_every_number_of_rows_and_columns_of_a_tile(rung: str) -> None:
    rng = np.random.default_rng(4)
    for m in range(1, 31):
        n, k = 1 + (7 * m) % 66, 1 + (5 * m) % 23
        a = rng.integers(0, 256, (m, k), dtype=np.uint8)
        w = rng.integers(-127, 128, (k, n)).astype(np.int8)
        given = a, pack(w), *factors(rng, n, k)
        want = int8_gemm.forward["numpy"](*given, zero=100)
        assert np.array_equal(int8_gemm.forward[rung](*given, zero=100), want), (m, k, n)


@pytest.mark.parametrize("channels", [1, 3, 20])
@pytest.mark.parametrize("pad", [0, 2])
@pytest.mark.parametrize("dilation", [1, 2])
def test_windows_are_copied_to_their_rows_and_nowhere_else(
    channels: int, pad: int, dilation: int
) -> None:
    rng = np.random.default_rng(6)
    x, k = rng.integers(0, 256, (2, 6, 7, channels), dtype=np.uint8), (3, 2)
    size = (6 + 2 * pad - 2 * dilation, 7 + 2 * pad - dilation)
    outputs, length = 2 * size[0] * size[1], 6 * channels
    settings = (size, k, (1, 1), (pad, pad), (dilation, dilation), 77)
    whole = np.zeros((outputs, length), np.uint8)
    int8_conv2d.gather(x, whole, 0, outputs, *settings)
    wide = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)), constant_values=77)
    taps = [
        wide[:, p * dilation :, q * dilation :][:, : size[0], : size[1]]
        for p in range(k[0])
        for q in range(k[1])
    ]
    assert np.array_equal(whole, np.stack(taps, axis=3).reshape(outputs, length))
    for first, count in ((0, 1), (size[1] - 1, 3), (outputs - 2, 2)):
        part = np.full((5, length), 171, np.uint8)
        int8_conv2d.gather(x, part, first, count, *settings)
        assert np.array_equal(part[:count], whole[first : first + count])
        assert (part[count:] == 171).all()


def _good() -> dict[str, Any]:
    rng = np.random.default_rng(5)
    w = rng.integers(-127, 128, (8, 3)).astype(np.int8)
    names = ("a", "panels", "bias", "scale", "slope")
    codes = rng.integers(0, 256, (6, 8), dtype=np.uint8)
    return dict(zip(names, (codes, pack(w), *factors(rng, 3, 8)), strict=True))


@pytest.mark.parametrize(
    ("name", "value", "error", "text"),
    [
        ("a", np.zeros((6, 8), np.int8), DTypeError, "a: expected uint8"),
        ("a", np.zeros(8, np.uint8), ShapeError, r"a: expected shape \(M, K\)"),
        ("a", np.zeros((6, 0), np.uint8), ShapeError, "at least one number"),
        ("a", np.zeros((8, 6), np.uint8).T, LayoutError, "C-contiguous"),
        ("panels", np.zeros((1, 2, 32, 4), np.uint8), DTypeError, "panels: expected int8"),
        ("panels", np.zeros((1, 3, 32, 4), np.int8), ShapeError, "panels"),
        ("bias", np.zeros(3, np.int64), DTypeError, "bias: expected int32"),
        ("scale", np.zeros(3), DTypeError, "scale: expected float32"),
        ("scale", np.array([0.1, np.nan, 0.1], np.float32), InputError, "channel 1"),
        ("scale", np.array([0.1, 0.1, 1.0], np.float32), InputError, "channel 2"),
        ("slope", np.array([np.inf, 1, 1], np.float32), InputError, "channel 0"),
        ("slope", np.zeros(4, np.float32), ShapeError, "slope"),
    ],
)
def test_a_product_refuses(name: str, value: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        int8_gemm.forward(*{**_good(), name: value}.values(), zero=0)


@pytest.mark.parametrize("zero", [-1, 256])
def test_zero_points_are_codes(zero: int) -> None:
    with pytest.raises(InputError, match="zero: expected a zero point from 0 to 255"):
        int8_gemm.forward(*_good().values(), zero=zero)


def test_logits_may_be_large() -> None:
    given = {**_good(), "scale": np.full(3, 1e6, np.float32)}
    assert int8_gemm.forward(*given.values(), zero=0, as_float=True).dtype == np.float32


def test_maps_that_do_not_fit_are_refused() -> None:
    x, one = np.zeros((1, 2, 2, 4), np.uint8), np.ones(4, np.float32)
    bias, small = np.zeros(4, np.int32), 0.1 * one
    where: Any = {"stride": (1, 1), "pads": (0, 0, 0, 0), "zero_in": 0, "zero": 0}
    with pytest.raises(ShapeError, match="at least 3x3"):
        int8_depthwise.forward(x, np.zeros((3, 3, 4), np.int8), bias, small, one, **where)
    with pytest.raises(ShapeError, match="w: expected shape"):
        int8_depthwise.forward(x, np.zeros((2, 2, 3), np.int8), bias, small, one, **where)
    with pytest.raises(ShapeError, match="panels"):
        int8_conv2d.forward(
            x, pack(np.zeros((4, 4), np.int8)), bias, small, one, kernel_size=(2, 2), **where
        )
    with pytest.raises(ShapeError, match="at least one row"):
        int8_pointwise.forward(x[:0], pack(np.zeros((4, 4), np.int8)), bias, small, one, zero=0)
    with pytest.raises(ShapeError, match="at least one pixel"):
        int8_global_avg_pool.forward(x[:, :0], scale=0.1, zero_in=0, zero=0)


@pytest.mark.parametrize(
    ("changed", "error", "text"),
    [
        ({"other": np.zeros((2, 4), np.uint8)}, ShapeError, "other: expected shape"),
        ({"x": np.zeros((2, 3), np.int8)}, DTypeError, "x: expected uint8"),
        ({"x": np.zeros((), np.uint8)}, ShapeError, "x: expected shape"),
        ({"slope": np.ones(2, np.float32)}, ShapeError, "slope: expected shape"),
        ({"slope": np.array([1, np.nan, 1], np.float32)}, InputError, "products fit float32"),
        ({"slope": np.array([1, np.inf, 1], np.float32)}, InputError, "products fit float32"),
        ({"scale": 1e38, "scale_other": 1e38}, InputError, "products fit float32"),
        ({"scale_other": 0.0}, InputError, "scale: expected a positive"),
        ({"zero_other": 256}, InputError, "zero_other: expected a zero point"),
    ],
)
def test_a_sum_of_maps_refuses(changed: Any, error: type[Exception], text: str) -> None:
    given: dict[str, Any] = {
        "x": np.zeros((2, 3), np.uint8), "other": np.zeros((2, 3), np.uint8),
        "slope": np.ones(3, np.float32), "scale": 0.5, "scale_other": 0.5, "zero_in": 0,
        "zero_other": 0, "zero": 0,
    }  # fmt: skip
    assert not int8_add.forward(**given).any()
    with pytest.raises(error, match=text):
        int8_add.forward(**{**given, **changed})


@pytest.mark.parametrize("rung", int8_add.forward.rungs)
def test_maps_without_pixels_have_no_sum(rung: str) -> None:
    x, slope = np.zeros((0, 5, 3), np.uint8), np.ones(3, np.float32)
    settings: Any = {"scale": 0.5, "scale_other": 0.5, "zero_in": 0, "zero_other": 0, "zero": 0}
    assert int8_add.forward[rung](x, x, slope, **settings).shape == (0, 5, 3)


@pytest.mark.parametrize("rung", quantize.forward.rungs)
def test_nan_has_no_code(rung: str) -> None:
    x = np.zeros((3, 50), np.float32)
    x[1, 7] = np.nan
    with pytest.raises(InputError, match="1 NaN"):
        quantize.forward[rung](x, scale=0.1, zero=3)


@pytest.mark.parametrize("scale", [0.0, -1.0, np.nan, np.inf, 1e-60])
def test_a_scale_is_positive_and_finite(scale: float) -> None:
    with pytest.raises(InputError, match="scale: expected"):
        quantize.forward(np.zeros(3, np.float32), scale=scale, zero=0)


def test_rungs_are_those_of_the_instructions_compiled_for(monkeypatch: pytest.MonkeyPatch) -> None:
    rungs = list(int8_gemm.forward.rungs)
    assert ("vnni" in rungs) == simd.VNNI
    assert ("avx2" in rungs) == (simd.ISA in ("avx2", "avx512"))
    monkeypatch.setenv("MINIDNN_SIMD", "avx2")
    assert not simd.has_vnni()
