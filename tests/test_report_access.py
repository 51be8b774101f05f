"""The report's loop nests: the orders shown are those of the kernels, and give the convolution."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from minidnn.kernels.ladder import load_all
from minidnn.measure.report import access
from minidnn.measure.report.access import CHANNELS, NESTS, PADS, SIZE, TAPS
from tests.oracles.conv import depthwise as oracle


def _naive(channels: int) -> Iterator[tuple[int, ...]]:
    pixels = range(SIZE)
    yield from itertools.product(pixels, pixels, range(channels), range(3), range(3))


def _channels_last(channels: int) -> Iterator[tuple[int, ...]]:
    pixels = range(SIZE)
    for oy, ox, ky, kx, c in itertools.product(pixels, pixels, range(3), range(3), range(channels)):
        yield oy, ox, c, ky, kx


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize(("nest", "loops"), [(NESTS[0], _naive), (NESTS[1], _channels_last)])
def test_orders_are_those_of_the_loops(nest: access.Nest, loops: Any, channels: int) -> None:
    found = access.order(nest, channels)
    expected = []
    for oy, ox, c, ky, kx in loops(channels):
        iy, ix = oy + ky - PADS[0], ox + kx - PADS[2]
        if 0 <= iy < SIZE and 0 <= ix < SIZE:
            x = (iy * SIZE + ix) * channels + c
            expected.append((x, (ky * TAPS + kx) * channels + c, (oy * SIZE + ox) * channels + c))
    assert list(zip(found.x, found.w, found.y, strict=True)) == expected


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("nest", NESTS, ids=lambda nest: nest.name)
def test_multiplying_in_that_order_is_the_convolution(nest: access.Nest, channels: int) -> None:
    rng = np.random.default_rng(3)
    x = rng.standard_normal((1, SIZE, SIZE, channels))
    w = rng.standard_normal((TAPS, TAPS, channels))
    y = np.zeros(x.size)
    found = access.order(nest, channels)
    for at_x, at_w, at_y in zip(found.x, found.w, found.y, strict=True):
        y[at_y] += x.ravel()[at_x] * w.ravel()[at_w]
    ladder: Any = load_all()["depthwise.forward"]
    want = oracle(x, w, stride=(1, 1), pads=PADS)
    np.testing.assert_allclose(y.reshape(x.shape), want, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(ladder[nest.name](x, w, stride=(1, 1), pads=PADS), want, atol=1e-12)


@pytest.mark.parametrize("nest", NESTS, ids=lambda nest: nest.name)
def test_loops_are_named_from_the_outermost_in(nest: access.Nest) -> None:
    one = access.order(nest, 3)
    steps = [access.index(one, i, 3) for i in range(len(one.x))]
    values = [tuple(step[loop] for loop in nest.loops) for step in steps]
    assert values == sorted(values)
    assert len(set(values)) == len(values)


def test_sums_stay_in_a_register_in_naive_alone() -> None:
    naive, last = (access.order(nest, 3) for nest in NESTS)
    assert sum(naive.stored) == SIZE * SIZE * 3
    assert all(last.stored)


def test_channels_innermost_changes_cache_lines_less() -> None:
    assert access.jumps([0, 15, 16, 17, 0]) == 2
    naive, last = (access.jumps(access.order(nest, 16).x) for nest in NESTS)
    assert (naive, last) == (1599, 99)


def test_a_kernel_with_other_loops_gives_another_order() -> None:
    def turned(x: Any, w: Any, y: Any, stride: Any, pads: Any) -> None:
        del stride, pads
        for oy in reversed(range(y.shape[1])):
            y[0, oy, 0, 0] = x[0, oy, 0, 0] * w[0, 0, 0]

    nest = access.Nest("turned", "", "", turned, ("oy",))
    assert access.order(nest, 1).x == [12, 8, 4, 0]
