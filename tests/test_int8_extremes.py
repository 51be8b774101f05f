"""8-bit kernels at the ends of their ranges: no sum overflows, saturates or loses a bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from minidnn.kernels import int8_add, int8_conv2d, int8_depthwise, int8_gemm, int8_pointwise
from minidnn.kernels.int8 import pack

HIGHEST, LOWEST = 2**31 - 1, -(2**31)
CHANNELS = 70  # three panels of weights, the last of them narrow
# What is left of a sum when a bias has taken the largest part away: each unit is a code.
LEFT = np.arange(CHANNELS) - 35
CORNERS = pytest.mark.parametrize(
    ("code", "weight"), [(255, 127), (255, -127), (0, 127), (1, -127)]
)
LENGTHS = pytest.mark.parametrize("k", [1, 2, 3, 4, 5, 27, 75, 576, 1024, 4607, 4608])
ONES = np.ones(CHANNELS, np.float32)


def _units(slope: float = 1) -> tuple[Any, Any]:
    """Return a scale that makes each unit of a sum half a code, and slopes."""
    return 0.5 * ONES, slope * ONES


def _codes(left: Any, zero: int) -> Any:
    return np.clip(np.rint(left * 0.5) + zero, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("rung", int8_gemm.forward.rungs)
@CORNERS
@LENGTHS
def test_products_at_the_ends_keep_their_last_unit(
    rung: str, code: int, weight: int, k: int
) -> None:
    a, w = np.full((15, k), code, np.uint8), np.full((k, CHANNELS), weight, np.int8)
    bias = (LEFT - code * weight * k).astype(np.int32)
    given = a, pack(w), bias, *_units()
    got = int8_gemm.forward[rung](*given, zero=100)
    assert (got == _codes(LEFT, 100)).all()
    assert (int8_pointwise.forward[rung](a[None], *given[1:], zero=100) == got).all()
    whole = int8_gemm.forward[rung](a, pack(w), 0 * bias, ONES, ONES, zero=0, as_float=True)
    assert (whole == np.float32(code * weight * k)).all()


@pytest.mark.parametrize("rung", int8_gemm.forward.rungs)
@pytest.mark.parametrize(("weight", "end"), [(127, HIGHEST), (-127, LOWEST)])
@pytest.mark.parametrize("k", [4608, 66_311])
def test_sums_reach_both_ends_of_int32(rung: str, weight: int, end: int, k: int) -> None:
    a, w = np.full((15, k), 255, np.uint8), np.full((k, 33), weight, np.int8)
    bias = np.full(33, end - 255 * weight * k, np.int64).astype(np.int32)
    ones = ONES[:33]
    got = int8_gemm.forward[rung](a, pack(w), bias, ones, ones, zero=0, as_float=True)
    assert (got == np.float32(end)).all()
    tiny = (ones * 2**-24).astype(np.float32)
    codes = int8_gemm.forward[rung](a, pack(w), bias, tiny, ones, zero=128)
    assert (codes == (255 if end > 0 else 0)).all()


@pytest.mark.parametrize("rung", int8_gemm.forward.rungs)
def test_a_sum_may_leave_int32_on_its_way_and_come_back(rung: str) -> None:
    a, w = np.full((15, 4608), 255, np.uint8), np.full((4608, 33), 127, np.int8)
    w[2304:] = -127
    for end, signs in ((HIGHEST, 1), (LOWEST, -1)):
        given = a, pack(signs * w), np.full(33, end, np.int64).astype(np.int32)
        got = int8_gemm.forward[rung](*given, ONES[:33], ONES[:33], zero=0, as_float=True)
        assert (got == np.float32(end)).all()


@pytest.mark.parametrize("rung", int8_conv2d.forward.rungs)
@CORNERS
@pytest.mark.parametrize(("size", "channels"), [(5, 3), (3, 64), (3, 512)])
def test_convolutions_at_the_ends_keep_their_last_unit(
    rung: str, code: int, weight: int, size: int, channels: int
) -> None:
    x, k = np.full((1, 4, 4, channels), code, np.uint8), size * size * channels
    pad = size // 2
    w = np.full((k, CHANNELS), weight, np.int8)
    bias = (LEFT - code * weight * k).astype(np.int32)
    settings: dict[str, Any] = {
        "kernel_size": (size, size), "stride": (1, 1), "pads": (pad,) * 4, "zero_in": code,
    }  # fmt: skip
    got = int8_conv2d.forward[rung](x, pack(w), bias, *_units(), **settings, zero=100)
    assert got.shape == (1, 4, 4, CHANNELS)
    assert (got == _codes(LEFT, 100)).all()
    args = x, pack(w), 0 * bias, ONES, ONES
    whole = int8_conv2d.forward[rung](*args, **settings, zero=0, as_float=True)
    assert (whole == np.float32(code * weight * k)).all()


@pytest.mark.parametrize("rung", int8_depthwise.forward.rungs)
@CORNERS
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [3, 5])
def test_windows_per_channel_at_the_ends_keep_their_last_unit(
    rung: str, code: int, weight: int, stride: int, size: int
) -> None:
    x, pad = np.full((2, 6, 7, CHANNELS), code, np.uint8), size // 2
    w = np.full((size, size, CHANNELS), weight, np.int8)
    where: dict[str, Any] = {
        "stride": (stride, stride), "pads": (pad,) * 4, "zero_in": code, "zero": 100,
    }  # fmt: skip
    for slope in (1, 0.25, -1):
        bias = (LEFT - code * weight * size * size).astype(np.int32)
        got = int8_depthwise.forward[rung](x, w, bias, *_units(slope), **where)
        assert (got == _codes(np.where(LEFT > 0, LEFT, LEFT * slope), 100)).all()


@pytest.mark.parametrize("rung", int8_depthwise.forward.rungs)
@pytest.mark.parametrize(("weight", "end"), [(127, HIGHEST), (-127, LOWEST)])
def test_windows_per_channel_reach_both_ends_of_int32(rung: str, weight: int, end: int) -> None:
    x, w = np.full((1, 5, 5, CHANNELS), 255, np.uint8), np.full((3, 3, CHANNELS), weight, np.int8)
    bias = np.full(CHANNELS, end - 255 * weight * 9, np.int64).astype(np.int32)
    scale = ((LEFT + 36) * 2**-31).astype(np.float32)
    got = int8_depthwise.forward[rung](
        x, w, bias, scale, ONES, stride=(1, 1), pads=(1, 1, 1, 1), zero_in=255, zero=128
    )
    # The sum is 2 ** 31 as a float32 number, so channel c becomes the code c + 1 from zero.
    assert (got == np.clip(128 + np.sign(end) * (LEFT + 36), 0, 255)).all()


@pytest.mark.parametrize("rung", int8_add.forward.rungs)
@pytest.mark.parametrize("zero", [0, 128, 255])
def test_sums_of_all_pairs_of_codes_are_exact_where_scales_are(rung: str, zero: int) -> None:
    x, other = (a.astype(np.uint8).reshape(-1, 64) for a in np.divmod(np.arange(1 << 16), 256))
    got = int8_add.forward[rung](
        x, other, ONES[:64], scale=0.5, scale_other=0.25, zero_in=3, zero_other=250, zero=zero
    )
    real = (x.astype(int) - 3) * 0.5 + (other.astype(int) - 250) * 0.25
    assert (got == np.clip(np.rint(real) + zero, 0, 255)).all()
