"""`minidnn.quantize`: plans on codes give the integer reference's bits, and stay near float32."""

from __future__ import annotations

import threading
import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import minidnn as nn
from minidnn.errors import ConfigError, InputError, NonFiniteError, ShapeError
from minidnn.models import MODELS, build
from minidnn.plan.compiler import Plan
from minidnn.plan.folding import simplify
from minidnn.plan.lowering import lower
from minidnn.plan.program import Codes
from minidnn.quantization.calibration import observe
from minidnn.quantization.comparison import layer_noise, lost
from minidnn.quantization.equalise import equalise
from minidnn.quantization.post_training import prepare, vanhoucke
from minidnn.quantization.quantizer import quantise
from minidnn.threads import num_threads, set_num_threads
from tests.oracles import int8_plan
from tests.test_plan import SMALL, Branches, _images, _settled

SHAPE = (21, 21, 3)


def _model(name: str) -> nn.Module:
    rng = np.random.default_rng(0)
    return _settled(build(name, num_classes=5, input_shape=SHAPE, rng=rng, **SMALL[name]))


def _quantized(model: nn.Module, shape: tuple[int, ...] = SHAPE, **more: Any) -> Plan:
    return nn.quantize(model, _images(40, shape, seed=7), input_shape=(1, *shape), **more)


def _noise(got: Any, want: Any) -> float:
    """Return the signal-to-noise ratio in dB."""
    return float(10 * np.log10(np.square(want).sum() / np.square(got - want).sum()))


@pytest.mark.parametrize("method", ["mse", "minmax"])
@pytest.mark.parametrize("name", MODELS)
def test_every_model_gives_the_bits_of_the_integer_reference(name: str, method: str) -> None:
    plan = _quantized(_model(name), method=method)
    kinds = {step.kind for step in plan.program.steps}
    assert all(kind.startswith("int8_") for kind in kinds - {"quantize"}), kinds
    for n in (1, 3, 21):
        x = _images(n, SHAPE)
        (want,) = int8_plan.run(plan.program, x)
        got = plan(x)
        assert got.dtype == np.float32
        assert got.tobytes() == want.tobytes(), n


@pytest.mark.parametrize("name", MODELS)
def test_every_model_stays_near_float32(name: str) -> None:
    model, x = _model(name), _images(50, SHAPE)
    assert _noise(_quantized(model)(x), nn.compile(model, (1, *SHAPE))(x)) > 20


class Odd(nn.Module):
    """Strides, dilation, a kernel that is not square, two channels, bare activations."""

    def __init__(self) -> None:
        super().__init__()
        rng = np.random.default_rng(1)
        self.wide = nn.Conv2d(2, 9, (1, 4), stride=2, padding=1, dilation=(1, 2), rng=rng)
        self.act = nn.LeakyReLU(0.2)
        self.narrow = nn.DepthwiseConv2d(9, 5, stride=2, rng=rng)
        self.norm = nn.BatchNorm2d(9)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1, ceil_mode=True)
        self.again = nn.PReLU(9)
        self.mix = nn.PointwiseConv2d(9, 33, bias=True, rng=rng)
        self.flat = nn.Flatten()
        self.last = nn.Linear(33 * 3 * 4, 1, rng=rng)

    def forward(self, x: nn.Tensor) -> nn.Tensor:
        x = self.pool(self.norm(self.narrow(self.act(self.wide(x)))))
        logits: nn.Tensor = self.last(self.flat(self.mix(self.again(x))))
        return logits


def test_odd_layers_give_the_bits_of_the_integer_reference() -> None:
    shape, model = (23, 17, 2), _settled(Odd())
    plan = _quantized(model, shape)
    for n in (1, 2, 19):
        x = _images(n, shape)
        (want,) = int8_plan.run(plan.program, x)
        assert np.array_equal(plan(x), want)
    assert _noise(plan(x), nn.compile(model, (1, *shape))(x)) > 20


class Residual(nn.Module):
    """Sums of maps of different ranges, with and without an activation behind."""

    def __init__(self) -> None:
        super().__init__()
        rng = np.random.default_rng(2)
        self.first = nn.Conv2d(3, 19, 3, padding=1, rng=rng)
        self.second = nn.SeparableConv2d(19, 19, rng=rng)
        self.act = nn.PReLU(19)
        self.third = nn.SeparableConv2d(19, 19, rng=rng)
        self.pool = nn.GlobalAvgPool2d()
        self.head = nn.Linear(19, 4, rng=rng)

    def forward(self, x: nn.Tensor) -> nn.Tensor:
        a = self.first(x)
        b = self.act(self.second(a) + a)
        logits: nn.Tensor = self.head(self.pool(self.third(b) + b))
        return logits


def test_sums_of_maps_give_the_bits_of_the_integer_reference() -> None:
    shape, model = (7, 5, 3), _settled(Residual())
    plan = _quantized(model, shape)
    assert [step.kind for step in plan.program.steps].count("int8_add") == 2
    for n in (1, 2, 19):
        x = _images(n, shape)
        (want,) = int8_plan.run(plan.program, x)
        assert np.array_equal(plan(x), want)
    assert _noise(plan(x), nn.compile(model, (1, *shape))(x)) > 20


@pytest.mark.parametrize("channels", [96, 256])
def test_pooled_products_cut_by_panels_give_the_bits_of_the_integer_reference(
    channels: int,
) -> None:
    # Panels of bytes are 32 columns wide, whatever those of float32 are on this CPU.
    rng, shape = np.random.default_rng(3), (6, 6, 256)
    layers = (nn.SeparableConv2d(256, channels, 3, rng=rng), nn.PReLU(channels), nn.MaxPool2d(2))
    model = _settled(nn.Sequential(*layers))
    plan = _quantized(model, shape)
    assert any(step.pool == 2 for step in plan.program.steps)
    for n in (1, 3):
        x = _images(n, shape)
        (want,) = int8_plan.run(plan.program, x)
        for _ in range(50):  # in some of them one thread takes all turns
            assert np.array_equal(plan(x), want)


def test_what_has_no_8_bit_loop_stays_float32_and_near() -> None:
    shape, model = (6, 7, 3), Branches().eval()
    plan, plain = _quantized(model, shape), nn.compile(model, (1, *shape))
    kinds = {step.kind for step in plan.program.steps}
    assert "int8_convolve" in kinds
    assert "copy" in kinds
    x = _images(9, shape)
    for got, want in zip(plan(x), plain(x), strict=True):
        assert got.shape == want.shape
        assert _noise(got, want) > 20


def test_bits_depend_neither_on_threads_nor_on_the_batch() -> None:
    plan, x, before = _quantized(_model("quicknet")), _images(33, SHAPE), num_threads()
    want = plan(x)
    try:
        for threads in (1, 2):
            set_num_threads(threads)
            assert np.array_equal(plan(x), want)
            assert np.array_equal(np.concatenate([plan(x[i : i + 1]) for i in range(33)]), want)
    finally:
        set_num_threads(before)


def test_two_threads_of_python_may_use_one_plan() -> None:
    plan, x = _quantized(_model("quicknet")), _images(8, SHAPE)
    want, found = plan(x), []
    workers = [threading.Thread(target=lambda: found.append(plan(x))) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert all(np.array_equal(got, want) for got in found)
    assert len(found) == 4


def test_layers_that_are_kept_stay_float32() -> None:
    plan = _quantized(_model("quicknet"), keep=["head.linear"])
    assert [s.kind for s in plan.program.steps if "head.linear" in s.labels][-1] == "convolve"
    with pytest.raises(ConfigError, match=r"head\.linear"):
        _quantized(_model("quicknet"), keep=["head.linea"])


def test_one_scale_per_layer_is_there_to_compare_with() -> None:
    model, x = _model("quicknet"), _images(50, SHAPE)
    plain = nn.compile(model, (1, *SHAPE))(x)
    plan = vanhoucke(model, SHAPE, lambda: [_images(40, SHAPE, seed=7)])
    kinds = [step.kind for step in plan.program.steps]
    assert kinds[0] == "convolve"
    assert {"int8_convolve", "quantize"} <= set(kinds)
    assert 5 < _noise(plan(x), plain) < _noise(_quantized(model)(x), plain)


# --- evening out --------------------------------------------------------------------------


def test_evening_out_changes_no_output_and_helps_uneven_channels() -> None:
    model = _model("quicknet")
    for name, parameter in model.named_parameters():
        if "bn" in name or name.endswith("norm.weight"):  # uneven: each channel its own size
            parameter.data[...] *= np.geomspace(0.03, 30, parameter.data.size)
    program = simplify(lower(model, SHAPE))
    images = _images(40, SHAPE, seed=7)
    seen = observe(program, [images])
    even = equalise(program, {v: (one.low, one.high) for v, one in seen.items()})
    x = _images(20, SHAPE)
    want = Plan(program)(x)
    assert np.abs(Plan(even)(x) - want).max() < 1e-4 * np.abs(want).max()
    prepared = [prepare(model, SHAPE, lambda: [images], even=flag) for flag in (False, True)]
    noise = [_noise(p.quantised("minmax").plan()(x), want) for p in prepared]
    assert noise[1] > noise[0] + 3


# --- what it costs ------------------------------------------------------------------------


def test_noise_of_layers_is_that_of_their_plans() -> None:
    prepared = prepare(_model("quicknet"), SHAPE, lambda: [_images(40, SHAPE, seed=7)])
    codes, x = prepared.codes("mse"), _images(10, SHAPE)
    found = layer_noise(prepared, prepared.quantised("mse"), codes, [x[:4], x[4:]])
    want = Plan(prepared.program)(x)
    assert len(found) == len(prepared.program.steps)
    assert sum(layer.share for layer in found) == pytest.approx(1)
    assert found[-1].here == pytest.approx(_noise(prepared.quantised("mse").plan()(x), want), 1e-3)
    first = quantise(prepared.program, codes, keep=range(1, len(found))).plan()(x)
    assert found[0].alone == pytest.approx(_noise(first, want), rel=1e-3)


def test_a_layer_that_is_kept_in_float32_has_no_noise_of_its_own() -> None:
    prepared = prepare(_model("quicknet"), SHAPE, lambda: [_images(40, SHAPE, seed=7)])
    quantised = prepared.quantised("mse", keep=["head.linear"])
    found = layer_noise(prepared, quantised, prepared.codes("mse"), [_images(10, SHAPE)])
    assert [layer.on_codes for layer in found] == [True] * (len(found) - 1) + [False]
    assert found[-1].share == 0


def test_a_layer_made_coarse_is_found_to_cost_most() -> None:
    prepared = prepare(_model("quicknet"), SHAPE, lambda: [_images(40, SHAPE, seed=7)])
    codes = prepared.codes("mse")
    bad = prepared.program.steps[2].output
    codes[bad] = Codes(30 * codes[bad].scale, codes[bad].zero)
    quantised = quantise(prepared.program, codes)
    found = layer_noise(prepared, quantised, codes, [_images(10, SHAPE)])
    worst = max(range(len(found)), key=lambda i: found[i].share)
    assert prepared.program.steps[3].inputs == [bad]
    assert worst in (2, 3)  # the one that writes these codes, or the one that reads them


@pytest.mark.parametrize(
    ("first_alone", "second_alone", "both", "none"), [(3, 1, 90, 6), (0, 0, 10, 0), (1, 4, 5, 0)]
)
def test_what_is_lost_is_counted_in_pairs(
    first_alone: int, second_alone: int, both: int, none: int
) -> None:
    counts = first_alone, second_alone, both, none
    first = np.repeat([True, False, True, False], counts)
    second = np.repeat([False, True, True, False], counts)
    found, n = lost(first, [second]), len(first)
    assert found.share == pytest.approx((first_alone - second_alone) / n)
    assert (found.only_first, found.only_second) == (first_alone, second_alone)
    assert found.low < found.share < found.high
    assert lost(first, [second, second]) == found


def test_the_interval_holds_the_truth_nineteen_times_in_twenty() -> None:
    rng, inside = np.random.default_rng(0), 0
    for _ in range(400):
        kind = rng.choice(4, 500, p=[0.03, 0.02, 0.85, 0.1])
        found = lost((kind == 0) | (kind == 2), [(kind == 1) | (kind == 2)])
        inside += found.low <= 0.01 <= found.high
    assert 0.92 <= inside / 400 <= 0.98


# --- what is refused ----------------------------------------------------------------------


def test_bad_images_are_refused() -> None:
    model = _model("mlp")
    with pytest.raises(ConfigError, match="at least one image"):
        nn.quantize(model, [], input_shape=(1, *SHAPE))
    with pytest.raises(ShapeError, match=r"expected images of shape \(N, 21, 21, 3\)"):
        nn.quantize(model, _images(2, (3, 21, 21)), input_shape=(1, *SHAPE))
    bad = _images(3, SHAPE)
    bad[1, 4, 4, 0] = np.nan
    with pytest.raises(NonFiniteError, match="image 1"):
        nn.quantize(model, bad, input_shape=(1, *SHAPE))
    with pytest.raises(ConfigError, match="quantize: expected the shape of a batch"):
        nn.quantize(model, bad, input_shape=())


@pytest.mark.parametrize("value", [0.0, 2.5])
def test_constant_images_give_a_working_plan_and_a_warning(value: float) -> None:
    images = np.full((5, *SHAPE), value, np.float32)
    with warnings.catch_warnings(record=True) as warned:  # of several
        warnings.simplefilter("always")
        plan = nn.quantize(_model("quicknet"), images, input_shape=(1, *SHAPE))
    assert any("all 5 images are the same" in str(one.message) for one in warned)
    x = 100 * _images(3, SHAPE)  # far outside of what was seen
    assert np.isfinite(plan(x)).all()


def test_nan_is_refused_by_a_plan_on_codes() -> None:
    plan, x = _quantized(_model("mlp")), _images(2, SHAPE)
    x[1, 0, 0, 0] = np.nan
    with pytest.raises(InputError, match="NaN"):
        plan(x)


def test_no_images_give_no_outputs() -> None:
    assert _quantized(_model("quicknet"))(_images(0, SHAPE)).shape == (0, 5)


def test_layers_whose_sums_would_leave_int32_stay_float32_and_say_so() -> None:
    prepared = prepare(_model("quicknet"), SHAPE, lambda: [_images(40, SHAPE, seed=7)])
    codes = prepared.codes("mse")
    codes[prepared.program.input] = Codes(1e-9, 128)
    with pytest.warns(UserWarning, match=r"stem\.conv stays float32: .*range of int32"):
        plan = quantise(prepared.program, codes).plan()
    assert plan.program.steps[0].kind == "convolve"
    x = _images(9, SHAPE)
    assert _noise(plan(x), Plan(prepared.program)(x)) > 20


def test_codes_too_fine_for_a_layer_are_widened() -> None:
    prepared = prepare(_model("quicknet"), SHAPE, lambda: [_images(40, SHAPE, seed=7)])
    fine = {v: replace(c, scale=c.scale * 1e-3) for v, c in prepared.codes("mse").items()}
    codes = {**fine, prepared.program.input: prepared.codes("mse")[prepared.program.input]}
    plan = quantise(prepared.program, codes).plan()
    x = _images(3, SHAPE)
    (want,) = int8_plan.run(plan.program, x)
    assert np.array_equal(plan(x), want)
