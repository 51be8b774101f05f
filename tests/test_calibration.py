"""Calibration: ranges of codes from images, by three methods."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import minidnn as nn
from minidnn.errors import ConfigError, DTypeError, NonFiniteError, ShapeError
from minidnn.plan.compiler import Plan
from minidnn.plan.folding import simplify
from minidnn.plan.lowering import lower
from minidnn.plan.program import Codes, Program
from minidnn.quantization import calibration
from minidnn.quantization.calibration import Seen, calibrate, choose, decibels, error, observe

SHAPE = (9, 7, 3)


class Network(nn.Module):
    """A filter, a product that is pooled, a concatenation, a mean and logits."""

    def __init__(self) -> None:
        super().__init__()
        rng = np.random.default_rng(0)
        self.stem = nn.Sequential(nn.Conv2d(3, 5, 3, rng=rng), nn.BatchNorm2d(5), nn.PReLU(5))
        self.block = nn.SeparableConv2d(5, 17, rng=rng)
        self.pool = nn.MaxPool2d(2)
        self.side = nn.Sequential(nn.Conv2d(17, 4, 1, rng=rng), nn.ReLU())
        self.head = nn.Linear(21, 3, rng=rng)

    def forward(self, x: nn.Tensor) -> nn.Tensor:
        """Return logits."""
        x = self.pool(self.block(self.stem(x)))
        y: nn.Tensor = self.head(nn.GlobalAvgPool2d()(nn.concat([x, self.side(x)])))
        return y


def _program(model: nn.Module | None = None, shape: tuple[int, ...] = SHAPE) -> Program:
    return simplify(lower((model or Network()).eval(), shape))


def _images(n: int, shape: tuple[int, ...] = SHAPE, seed: int = 1) -> Any:
    return np.random.default_rng(seed).standard_normal((n, *shape)).astype(np.float32)


def _of(*arrays: Any) -> Seen:
    """Return what a value held that came in these pieces of shape (rows, channels)."""
    histogram = calibration._Histogram(arrays[0].shape[-1])
    for array in arrays:
        histogram.add(np.asarray(array, np.float32))
    return histogram.seen()


def _heavy(rows: int = 20_000, seed: int = 0) -> Any:
    """Numbers with long tails, longer above than below."""
    rng = np.random.default_rng(seed)
    x = rng.standard_t(3, (rows, 4)).astype(np.float32)
    return np.where(x > 0, 3 * x, x)


def _true_error(x: Any, codes: Codes) -> float:
    x = x.astype(np.float64)
    q = np.clip(np.rint(x / codes.scale) + codes.zero, 0, 255)
    return float(np.square((q - codes.zero) * codes.scale - x).mean())


# --- what is seen ---------------------------------------------------------------------------


@pytest.mark.parametrize("together", [1 << 10, 1 << 30])
def test_every_value_is_seen_whole_however_images_come(
    together: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration, "ROOM", together)
    program, images = _program(), _images(11)
    seen = observe(program, [images[:4], images[4:4], images[4:]])
    assert set(seen) == {program.input} | {step.output for step in program.steps}
    for value, one in seen.items():
        channels = one.low.size
        shape = program.sizes[value] // channels, channels
        found = Plan(replace(program, outputs=[(value, shape)]))(images)
        rows = found.reshape(-1, channels)
        assert np.array_equal(one.low, rows.min(axis=0))
        assert np.array_equal(one.high, rows.max(axis=0))
        assert one.counts.sum() == rows.size
        edges = one.start + one.width * np.arange(calibration.BINS + 1)
        assert np.array_equal(one.counts, np.histogram(rows.astype(np.float64), edges)[0])


def test_no_number_is_lost_when_bins_grow() -> None:
    rng = np.random.default_rng(0)
    drawn = ((0, 1e-9), (0, 1e-3), (-5, 1), (800, 2), (-1e6, 1e5), (0, 1))
    parts = [rng.normal(mean, std, (50, 3)).astype(np.float32) for mean, std in drawn]
    one = _of(*parts)
    everything = np.concatenate(parts).astype(np.float64)
    edges = one.start + one.width * np.arange(calibration.BINS + 1)
    assert np.array_equal(one.counts, np.histogram(everything, edges)[0])
    assert one.counts.sum() == everything.size
    assert math.log2(one.width) % 1 == 0
    # More than half of the bins are between the extremes.
    assert (one.high.max() - one.low.min()) / one.width > calibration.BINS / 2 - 2


@pytest.mark.parametrize("x", [0.0, 1e-40, -1e-40, 3e38, -3e38, 7.0])
def test_bins_hold_a_single_number_of_any_size(x: float) -> None:
    one = _of(np.full((3, 2), x))
    assert one.counts.sum() == 6
    at = int(one.counts.argmax())
    assert one.start + at * one.width <= x < one.start + (at + 1) * one.width
    codes = {method: choose(one, method) for method in calibration.METHODS}
    for found in codes.values():
        assert 0 <= found.zero <= 255
        assert found.scale > 0
        tiny = max(abs(x), 1e-38)
        assert found.low - 0.01 * tiny <= x <= found.high + 0.01 * tiny


def test_the_batches_may_be_a_generator_and_are_read_once() -> None:
    program, images = _program(), _images(6)

    def batches() -> Iterator[Any]:
        yield from (images[i : i + 2] for i in range(0, 6, 2))

    want = observe(program, [images])
    for value, one in observe(program, batches()).items():
        assert np.array_equal(one.counts, want[value].counts)
        assert (one.start, one.width) == (want[value].start, want[value].width)


# --- what is refused ------------------------------------------------------------------------


@pytest.mark.parametrize("batches", [[], [_images(0)], iter(())])
def test_no_images_are_refused(batches: Any) -> None:
    with pytest.raises(ConfigError, match="expected at least one image"):
        observe(_program(), batches)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_an_image_that_is_not_finite_is_named(bad: float) -> None:
    images = _images(9)
    images[7, 2, 3, 1] = bad
    with pytest.raises(NonFiniteError, match="image 7: expected numbers"):
        observe(_program(), [images[:4], images[4:]])


def test_a_layer_whose_output_is_not_finite_is_named() -> None:
    model = Network()
    model.block.pointwise.weight.data[...] = 1e38
    with pytest.raises(NonFiniteError, match=r"block\.pointwise.*image \d holds NaN or infinity"):
        observe(_program(model), [_images(3)])


@pytest.mark.parametrize(
    ("images", "kind"),
    [(_images(2, (7, 9, 3)), ShapeError), (_images(2).astype(np.float64), DTypeError),
     (_images(1)[0], ShapeError), (np.float32(1), ShapeError)],
)  # fmt: skip
def test_images_that_do_not_fit_are_refused(images: Any, kind: type[Exception]) -> None:
    with pytest.raises(kind, match="expected"):
        observe(_program(), [images])


def test_unknown_methods_and_shares_are_refused() -> None:
    one = _of(_heavy(100))
    with pytest.raises(ConfigError, match="did you mean 'percentile'"):
        choose(one, "percentil")
    with pytest.raises(ConfigError, match="did you mean 'mse'"):
        calibration.report(_program(), {}, "mes")
    for share in (0.0, 1.1, np.nan):
        with pytest.raises(ConfigError, match="share: expected"):
            choose(one, "percentile", share=share)


@pytest.mark.parametrize("images", [np.zeros((4, *SHAPE), np.float32), _images(1).repeat(4, 0)])
def test_equal_images_give_valid_codes_and_one_warning(images: Any) -> None:
    program = _program()
    with pytest.warns(UserWarning, match="all 4 images are the same") as caught:
        codes = calibrate(program, [images[:1], images[1:]])
    assert len(caught) == 1
    assert set(codes) == {program.input} | {step.output for step in program.steps}
    for one in codes.values():
        assert np.isfinite(one.scale)
        assert one.scale > 0
        assert 0 <= one.zero <= 255


def test_a_value_that_is_one_number_is_named() -> None:
    model = Network()
    model.state_dict()["side.0.bias"][...] = -1e3
    with pytest.warns(UserWarning, match=r"one number is all there is in side\.0") as caught:
        observe(_program(model), [_images(3)])
    assert len(caught) == 1


def test_ordinary_images_are_calibrated_without_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        observe(_program(), [_images(5)])
        observe(_program(), [_images(1)])


# --- what is chosen -------------------------------------------------------------------------


def test_minmax_covers_all_that_was_seen() -> None:
    x = _heavy()
    codes = choose(_of(x), "minmax")
    assert codes == Codes.over(float(x.min()), float(x.max()))


@pytest.mark.parametrize("share", [0.9, 0.99, 0.9999, 1.0])
def test_a_percentile_cuts_off_as_much_as_it_says_on_both_sides(share: float) -> None:
    x = _heavy()
    one = _of(x)
    codes = choose(one, "percentile", share=share)
    want = np.quantile(x.astype(np.float64), [(1 - share) / 2, (1 + share) / 2])
    slack = 1.5 * one.width + codes.scale
    if share < 0.999:  # further out the quantiles themselves lie far apart
        assert abs(codes.low - want[0]) < slack
        assert abs(codes.high - want[1]) < slack
    for cut in ((x < codes.low - slack).mean(), (x > codes.high + slack).mean()):
        assert cut <= (1 - share) / 2 + 1e-12


def test_a_range_of_numbers_of_one_sign_begins_at_zero() -> None:
    x = np.abs(_heavy()) + 5
    for method in calibration.METHODS:
        assert choose(_of(x), method).zero == 0
        assert choose(_of(-x), method).zero == 255


@pytest.mark.parametrize(
    "x",
    [_heavy(), np.maximum(_heavy(), 0), -_heavy(), np.random.default_rng(1).normal(0, 1, (9999, 2)),
     np.random.default_rng(1).uniform(-1, 3, (9999, 2)), _heavy(50)],
    ids=["heavy", "relu", "negative", "normal", "uniform", "few"],
)  # fmt: skip
def test_mse_is_as_good_as_a_fine_search_and_no_worse_than_the_others(x: Any) -> None:
    one = _of(x)
    x = x.astype(np.float32)
    found = {method: _true_error(x, choose(one, method)) for method in calibration.METHODS}
    assert found["mse"] <= 1.02 * min(found.values())
    low, high = min(x.min(), 0), max(x.max(), 0)
    tried = [
        _true_error(x, Codes.over(float(a * low), float(b * high)))
        for a in np.linspace(0.04, 1, 33)
        for b in np.linspace(0.04, 1, 33)
    ]
    assert found["mse"] <= 1.05 * min(tried)


def test_long_tails_are_cut_and_even_numbers_are_not() -> None:
    rng = np.random.default_rng(1)
    long, even = rng.laplace(0, 1, (200_000, 2)), rng.uniform(-1, 3, (9999, 2))
    assert choose(_of(long)).high < 0.85 * long.max()
    assert choose(_of(even)).high > 0.99 * even.max()


@pytest.mark.parametrize("method", calibration.METHODS)
def test_the_expected_error_is_that_of_the_numbers(method: str) -> None:
    x = _heavy()
    one = _of(x)
    codes = choose(one, method)
    want = _true_error(x, codes)
    assert error(one, codes) == pytest.approx(want, rel=0.03)
    signal = np.square(x.astype(np.float64)).mean()
    assert decibels(one, codes) == pytest.approx(10 * np.log10(signal / want), abs=0.15)


def test_zeros_have_no_noise() -> None:
    one = _of(np.zeros((4, 2)))
    assert decibels(one, choose(one)) == math.inf


def test_the_report_holds_every_method_for_every_value() -> None:
    program = _program()
    seen = observe(program, [_images(8)])
    found = calibration.report(program, seen, "percentile")
    assert found.codes == calibrate(program, seen, "percentile")
    layers = {row.value: row.layer for row in found.rows}
    assert layers[program.input] == "input"
    assert layers[program.outputs[0][0]] == "head"
    assert list(layers) == list(seen)
    for row in found.rows:
        assert set(row.codes) == set(row.decibels) == set(calibration.METHODS)
        assert row.decibels["mse"] >= max(row.decibels.values()) - 0.05
        assert 5 < row.decibels["mse"] < 70


def test_calibration_repeats() -> None:
    program, images = _program(), _images(8)
    assert calibrate(program, [images]) == calibrate(program, [images])
