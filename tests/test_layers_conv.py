"""Promises of Conv2d, its relatives, Linear and Flatten that are not arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from minidnn import (
    Conv2d,
    DepthwiseConv2d,
    Flatten,
    Linear,
    MaxPool2d,
    Module,
    PointwiseConv2d,
    SeparableConv2d,
    Sequential,
    Tensor,
    trace,
)
from minidnn.errors import ConfigError, DTypeError, LayoutError, ShapeError
from minidnn.kernels import conv2d as conv2d_kernel

LAYERS: dict[str, tuple[Callable[[], Module], tuple[int, ...]]] = {
    "conv": (lambda: Conv2d(3, 8, 3, padding=1), (5, 6, 3)),
    "conv_stride2_same": (lambda: Conv2d(3, 4, 3, stride=2, padding="same"), (6, 7, 3)),
    "conv_groups": (lambda: Conv2d(4, 6, 3, groups=2, bias=False), (5, 5, 4)),
    "depthwise": (lambda: DepthwiseConv2d(7), (5, 6, 7)),
    "depthwise_multiplier": (lambda: DepthwiseConv2d(3, multiplier=2, bias=True), (5, 6, 3)),
    "pointwise": (lambda: PointwiseConv2d(5, 9, bias=True), (3, 4, 5)),
    "separable": (lambda: SeparableConv2d(5, 9, stride=2), (7, 8, 5)),
    "linear": (lambda: Linear(17, 5), (17,)),
    "flatten": (Flatten, (3, 4, 5)),
}


def _images(n: int, shape: tuple[int, ...]) -> Any:
    return np.random.default_rng(n).standard_normal((n, *shape)).astype(np.float32)


@pytest.mark.parametrize("name", LAYERS)
def test_a_batch_gives_what_its_images_give_one_by_one(name: str) -> None:
    make, shape = LAYERS[name]
    layer, x = make(), _images(4, shape)
    whole = layer(Tensor(x)).data
    singles = np.concatenate([layer(Tensor(x[i : i + 1])).data for i in range(4)])
    np.testing.assert_allclose(whole, singles, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", LAYERS)
def test_the_same_seed_gives_the_same_weights_and_a_state_dict_carries_them(name: str) -> None:
    make, shape = LAYERS[name]
    one, two = make(), make()
    two.load_state_dict(one.state_dict())
    x = _images(2, shape)
    assert np.array_equal(one(Tensor(x)).data, two(Tensor(x)).data)


@pytest.mark.parametrize("name", LAYERS)
def test_a_nan_comes_out_again(name: str) -> None:
    make, shape = LAYERS[name]
    x = _images(2, shape)
    x[(1, *(n // 2 for n in shape))] = np.nan
    y = make()(Tensor(x)).data
    assert np.isnan(y[1]).any()
    assert not np.isnan(y[0]).any()


def test_weights_are_drawn_from_the_generator_given() -> None:
    for make in (
        lambda rng: Conv2d(3, 4, 3, rng=rng),
        lambda rng: SeparableConv2d(3, 4, rng=rng),
        lambda rng: Linear(3, 4, rng=rng),
    ):
        states = [make(np.random.default_rng(9)).state_dict() for _ in range(2)]
        other = make(np.random.default_rng(10)).state_dict()
        for key, value in states[0].items():
            assert np.array_equal(value, states[1][key])
            assert "bias" in key or not np.array_equal(value, other[key])


def test_initial_weights_have_the_declared_spread() -> None:
    rng = np.random.default_rng(0)
    spreads = {
        (2 / (9 * 64)) ** 0.5: Conv2d(64, 64, 3, rng=rng),
        1 / 3: DepthwiseConv2d(4096, 3, rng=rng),
        (2 / ((1 + 0.25**2) * 128)) ** 0.5: PointwiseConv2d(128, 256, rng=rng),
        0.01: Linear(256, 128, rng=rng),
    }
    for std, layer in spreads.items():
        weight = layer.parameters()[0].data
        assert weight.dtype == np.float32
        assert weight.std() == pytest.approx(std, rel=0.03)
        assert abs(weight.mean()) < 0.03 * std


def test_weight_decay_spares_depthwise_kernels_and_biases() -> None:
    net = Sequential(
        Conv2d(3, 4, 3), DepthwiseConv2d(4, bias=True), PointwiseConv2d(4, 5), Linear(5, 2)
    )
    kept = {name for name, p in net.named_parameters() if p.decay}
    assert kept == {"0.weight", "2.weight", "3.weight"}


@pytest.mark.parametrize("size", range(1, 9))
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("kernel", [1, 2, 3, 5])
def test_same_gives_ceil_of_size_over_stride(size: int, stride: int, kernel: int) -> None:
    x = Tensor(_images(1, (size, size + 1, 2)))
    for layer in (
        Conv2d(2, 3, kernel, stride=stride, padding="same"),
        DepthwiseConv2d(2, kernel, stride=stride, padding="same"),
    ):
        assert layer(x).shape[1:3] == (-(-size // stride), -(-(size + 1) // stride))


def test_same_puts_the_odd_zero_at_the_bottom_and_right() -> None:
    layer = Conv2d(1, 1, 3, stride=2, padding="same", bias=False)
    layer.weight.data.fill(0)
    layer.weight.data[2, 2] = 1
    y = layer(Tensor(np.ones((1, 4, 4, 1), np.float32))).data[0, :, :, 0]
    assert y.tolist() == [[1, 0], [0, 0]]


def test_macs_are_counted() -> None:
    def macs(layer: Module, shape: tuple[int, ...]) -> int:
        return sum(step.macs for step in trace(layer, shape).steps)

    assert macs(Conv2d(3, 64, 5), (1, 32, 32, 3)) == 3_763_200
    assert macs(Conv2d(8, 6, 3, groups=2), (1, 5, 5, 8)) == 3 * 3 * 6 * 9 * 4
    assert macs(SeparableConv2d(64, 128), (1, 28, 28, 64)) == 451_584 + 6_422_528
    assert macs(Linear(1024, 10), (1, 1024)) == 10_240


def test_the_first_layer_computes_no_input_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    for direction in ("backward_input", "backward_weight"):
        kernel = getattr(conv2d_kernel, direction)

        def watch(*args: Any, _k: Any = kernel, **settings: Any) -> Any:
            asked.append(_k.name)
            return _k(*args, **settings)

        monkeypatch.setattr(conv2d_kernel, direction, watch)
    net = Sequential(Conv2d(3, 4, 3), Conv2d(4, 2, 3))
    net(Tensor(_images(1, (6, 6, 3)))).sum().backward()
    assert sorted(asked) == ["conv2d.backward_input", *["conv2d.backward_weight"] * 2]


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: Conv2d(3, 4, 3, groups=2), "divide in_channels=3"),
        (lambda: Conv2d(4, 3, 3, groups=2), "out_channels=3"),
        (lambda: Conv2d(0, 4, 3), "in_channels: expected an int >= 1, got 0"),
        (lambda: Conv2d(3, 4, 0), "kernel_size"),
        (lambda: Conv2d(3, 4, 3, stride=0), "stride"),
        (lambda: Conv2d(3, 4, 3, padding=-1), "padding"),
        (lambda: Conv2d(3, 4, 3, dilation=(1, 0)), "dilation"),
        # Types that mypy refuses too.
        (lambda: Conv2d(3, 4, (3, 3, 3)), "kernel_size"),  # type: ignore[arg-type]
        (lambda: Conv2d(3, 4, 2.5), "kernel_size"),  # type: ignore[arg-type]
        (lambda: MaxPool2d(2.5), "kernel_size"),  # type: ignore[arg-type]
        (lambda: Conv2d(3, 4, 3, padding="full"), '"same" or "valid"'),  # type: ignore[arg-type]
        (lambda: DepthwiseConv2d(3, multiplier=0), "multiplier"),
        (lambda: PointwiseConv2d(3, -1), "out_channels"),
        (lambda: Linear(3, 0), "out_features"),
    ],
)
def test_settings_out_of_range_are_refused(make: Callable[[], Module], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        make()


@pytest.mark.parametrize("name", [n for n in LAYERS if n != "flatten"])
def test_bad_input_is_a_named_error_with_the_layers_path(name: str) -> None:
    make, shape = LAYERS[name]
    net = Sequential({"body": Sequential(make())})
    good = _images(2, shape)
    wrong_channels = np.concatenate([good, good], axis=-1)
    for bad, error in (
        (wrong_channels, ShapeError),
        (good[0, ..., 0], ShapeError),
        (good[:0], ShapeError),
        (good.astype(np.float64), DTypeError),
        (np.asfortranarray(good), LayoutError),
    ):
        if error is LayoutError and name == "depthwise_multiplier":
            continue  # it copies its input anyway
        with pytest.raises(error, match=r"^body\.0"):
            net(Tensor(bad))


@pytest.mark.parametrize("layer", [Conv2d(3, 4, 5), DepthwiseConv2d(3, 5, padding="valid")])
def test_a_map_smaller_than_the_kernel_names_both_sizes(layer: Module) -> None:
    with pytest.raises(ShapeError, match=r"at least 5x5 .* got 4x6"):
        layer(Tensor(_images(1, (4, 6, 3))))


def test_layers_print_their_settings() -> None:
    assert repr(Conv2d(3, 8, 3, stride=2, padding=1, groups=1, bias=False)) == (
        "Conv2d(3, 8, kernel_size=(3, 3), stride=(2, 2), padding=(1, 1), bias=False)"
    )
    assert "multiplier=2" in repr(DepthwiseConv2d(3, multiplier=2))
    assert repr(Linear(3, 4)) == "Linear(3, 4, bias=True)"
