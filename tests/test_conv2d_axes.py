"""Cut convolutions: nothing lost, nothing twice, no zero multiplied, nothing out of bounds."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
import pytest

from minidnn.kernels import conv2d
from minidnn.kernels.conv2d import axes
from minidnn.kernels.conv2d.axes import Axis, by_output, by_tap
from tests import guarded
from tests.cases import Case, load_cases
from tests.closeness import assert_close
from tests.guard_conv import COUNT, forget
from tests.processes import run

CASES = load_cases()
DIRECTIONS: dict[str, Any] = {
    "conv2d.forward": conv2d.forward,
    "conv2d.backward_input": conv2d.backward_input,
    "conv2d.backward_weight": conv2d.backward_weight,
}


def _products(axis: Axis) -> list[tuple[int, int, int]]:
    """Return (output, tap, pixel) of every product along an axis."""
    return [
        (
            axis.at + o * axis.step,
            axis.first_tap + tap,
            axis.origin + o * axis.stride + tap * axis.dilation,
        )
        for o, tap in product(range(axis.outputs), range(axis.taps))
    ]


@pytest.fixture
def cut_everything(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let every cut that saves a product look worth its while."""
    monkeypatch.setattr(axes, "LOOP_STEPS", 0)
    monkeypatch.setattr(axes, "VISIT_STEPS", 0)
    monkeypatch.setattr(axes, "PANEL_STEPS", 0)
    forget()
    yield
    forget()


@pytest.mark.parametrize("cut", [by_output, by_tap])
@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_cutting_leaves_the_products_with_pixels_and_no_others(cut: Any, size: int) -> None:
    for outputs, stride, dilation, origin, taps in product(
        (1, 2, 5), (1, 2, 3), (1, 2), (-4, -1, 0, 2), (1, 2, 3, 5)
    ):
        axis = Axis(outputs, stride, dilation, origin, 0, taps, at=1, step=2)
        wanted = [p for p in _products(axis) if 0 <= p[2] < size]
        assert sorted(p for part in cut(axis, size) for p in _products(part)) == sorted(wanted)


@pytest.mark.parametrize(
    ("name", "case"), [pytest.param(n, c, id=f"{n}-{c.name}") for n in DIRECTIONS for c in CASES[n]]
)
@pytest.mark.usefixtures("cut_everything")
def test_cut_convolutions_agree_with_the_oracle(name: str, case: Case) -> None:
    args = [a.astype(np.float32) for a in case.args(np.random.default_rng(3))]
    want = case.oracle(*[a.astype(np.float64) for a in args], **case.settings)
    got = DIRECTIONS[name]["simd"](*args, **case.settings)
    assert_close(got, want, terms=case.terms, dtype=np.float32)


def test_small_maps_of_a_large_batch_are_cut_and_a_single_image_is_not() -> None:
    axis = Axis(3, 1, 1, -1, 0, 3)
    assert len(axes.cut_outputs(axis, axis, (128, 3, 3, 512), 512, 1024)) == 9
    assert len(axes.cut_taps(axis, axis, (128, 3, 3, 512), 512, 1024)) == 9
    assert axes.cut_outputs(axis, axis, (1, 3, 3, 16), 16, 32) == [(axis, axis)]
    assert axes.cut_taps(axis, axis, (1, 3, 3, 16), 16, 32) == [(axis, axis)]


@pytest.mark.skipif(not guarded.SUPPORTED, reason="needs mprotect")
def test_convolutions_stay_inside_their_arrays() -> None:
    done = run(sys.executable, "-m", "tests.guard_conv")
    assert int(done.stdout) == COUNT
