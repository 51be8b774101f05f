"""Contracts of activations, normalisation, pooling, dropout and losses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from minidnn import (
    AvgPool2d,
    BatchNorm1d,
    BatchNorm2d,
    CrossEntropyLoss,
    Dropout,
    GlobalAvgPool2d,
    LeakyReLU,
    MaxPool2d,
    Module,
    PReLU,
    ReLU,
    Sequential,
    Tensor,
    accuracy,
    cross_entropy,
    mse_loss,
    softmax,
    trace,
)
from minidnn.errors import ConfigError, DTypeError, InputError, ShapeError
from minidnn.kernels import batchnorm
from minidnn.kernels.ladder import using
from tests.cases import signed

LAYERS: dict[str, Callable[[], Module]] = {
    "relu": ReLU,
    "leaky_relu": lambda: LeakyReLU(0.1),
    "prelu": lambda: PReLU(7),
    "prelu_element": lambda: PReLU((6, 5, 7)),
    "batchnorm": lambda: BatchNorm2d(7),
    "batchnorm_plain": lambda: BatchNorm2d(7, affine=False),
    "max_pool": lambda: MaxPool2d(2),
    "max_pool_ceil": lambda: MaxPool2d(3, 2, 1, ceil_mode=True),
    "max_pool_same": lambda: MaxPool2d(3, 2, "same"),
    "avg_pool": lambda: AvgPool2d((2, 3), (1, 2)),
    "avg_pool_same": lambda: AvgPool2d(3, 2, "same", count_include_pad=False),
    "global_avg_pool": GlobalAvgPool2d,
    "dropout": lambda: Dropout(0.3, np.random.default_rng(0)),
}


def _images(n: int = 3, seed: int = 1) -> Any:
    return signed(np.random.default_rng(seed), n, 6, 5, 7).astype(np.float32)


def _warm(layer: Module) -> Module:
    """Give parameters and buffers values of their own by a training step and noise."""
    rng = np.random.default_rng(2)
    layer(Tensor(_images(5, seed=4)))
    for p in layer.parameters():
        p.data += rng.standard_normal(p.shape).astype(p.dtype) * p.dtype.type(0.1)
    return layer


@pytest.mark.parametrize("name", LAYERS)
def test_a_batch_gives_what_its_images_give_alone_in_evaluation(name: str) -> None:
    layer, x = _warm(LAYERS[name]()).eval(), _images()
    together = layer(Tensor(x)).data
    alone = [layer(Tensor(x[i : i + 1])).data for i in range(len(x))]
    np.testing.assert_array_equal(together, np.concatenate(alone))


@pytest.mark.parametrize("name", LAYERS)
def test_evaluation_repeats_and_changes_no_state(name: str) -> None:
    layer, x = _warm(LAYERS[name]()).eval(), _images()
    before = {k: v.copy() for k, v in layer.state_dict().items()}
    first, second = layer(Tensor(x)).data, layer(Tensor(x)).data
    np.testing.assert_array_equal(first, second)
    for key, value in layer.state_dict().items():
        np.testing.assert_array_equal(value, before[key])


@pytest.mark.parametrize("name", LAYERS)
def test_a_saved_state_goes_on_exactly(name: str) -> None:
    layer, x = _warm(LAYERS[name]()), _images()
    copy = LAYERS[name]()
    copy.load_state_dict({k: v.copy() for k, v in layer.state_dict().items()})
    for _ in range(2):
        np.testing.assert_array_equal(layer(Tensor(x)).data, copy(Tensor(x)).data)


@pytest.mark.parametrize("name", LAYERS)
def test_a_trace_leaves_the_state_alone_and_knows_the_shape(name: str) -> None:
    layer = _warm(LAYERS[name]())
    before = {k: v.copy() for k, v in layer.state_dict().items()}
    for training in (False, True):
        graph = trace(layer, (2, 6, 5, 7), training=training)
        assert graph.values[graph.outputs[0]].shape == layer(Tensor(_images(2))).shape
        layer.load_state_dict(before)


@pytest.mark.parametrize("name", [n for n in LAYERS if n != "dropout"])
def test_every_rung_gives_the_same_to_rounding(name: str) -> None:
    results = []
    for rung in ("naive", "numpy", "fused"):
        layer, x = _warm(LAYERS[name]()), Tensor(_images(), requires_grad=True)
        with using(rung):
            y = layer(x)
            y.backward(signed(np.random.default_rng(3), *y.shape).astype(np.float32))
        assert x.grad is not None
        results.append((y.data, x.grad))
    for y, dx in results[1:]:
        np.testing.assert_allclose(y, results[0][0], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(dx, results[0][1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", LAYERS)
def test_an_empty_batch_passes_in_evaluation(name: str) -> None:
    layer = LAYERS[name]().eval()
    x = Tensor(np.zeros((0, 6, 5, 7), np.float32), requires_grad=True)
    y = layer(x)
    assert y.shape[0] == 0
    y.backward(np.zeros(y.shape, np.float32)) if y.requires_grad and y is not x else None


def test_relu_of_infinities_and_nan() -> None:
    x = np.array([-np.inf, np.inf, np.nan, -0.0, 1.5, -2.0] * 4, np.float32)
    for rung in ("naive", "numpy", "fused"):
        with using(rung):
            y = ReLU()(Tensor(x)).data
        np.testing.assert_array_equal(y, np.array([0, np.inf, np.nan, 0, 1.5, 0] * 4))


@pytest.mark.parametrize("layer", [ReLU(), LeakyReLU(0.25), PReLU(1, 0.25)])
def test_zero_takes_the_slope_side(layer: Module) -> None:
    x = Tensor(np.zeros((2, 3), np.float32), requires_grad=True)
    layer(x).backward(np.ones((2, 3), np.float32))
    assert x.grad is not None
    assert (x.grad == (0.0 if isinstance(layer, ReLU) else 0.25)).all()


# --- batch norm -----------------------------------------------------------------------


@pytest.mark.parametrize("offset", [0.0, 1000.0, -30000.0])
@pytest.mark.parametrize("rung", ["naive", "numpy", "fused"])
def test_a_mean_far_from_zero_costs_no_accuracy(rung: str, offset: float) -> None:
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((5000, 17)) + offset).astype(np.float32)
    one, zero = np.ones(17, np.float32), np.zeros(17, np.float32)
    y, mean, var = batchnorm.forward[rung](x, one, zero, eps=1e-5)
    wide = x.astype(np.float64)
    np.testing.assert_allclose(mean, wide.mean(axis=0), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(var, wide.var(axis=0), rtol=1e-5)
    want = (wide - wide.mean(axis=0)) / np.sqrt(wide.var(axis=0) + 1e-5)
    np.testing.assert_allclose(y, want, atol=2e-5)


@pytest.mark.parametrize("rung", ["naive", "numpy", "fused"])
def test_one_outlier_does_not_spoil_the_variance(rung: str) -> None:
    x = np.random.default_rng(0).standard_normal((4000, 3)).astype(np.float32)
    x[0] = 1e4  # also the row from which the fused rung measures differences
    gamma = np.ones(3, np.float32)
    _, _, var = batchnorm.forward[rung](x, gamma, gamma, eps=1e-5)
    np.testing.assert_allclose(var, x.astype(np.float64).var(axis=0), rtol=5e-5)


def test_a_constant_channel_becomes_beta() -> None:
    layer = BatchNorm2d(2)
    assert layer.bias is not None
    layer.bias.data[...] = [0.5, -3]
    y = layer(Tensor(np.full((4, 3, 3, 2), 1234.567, np.float32)))
    np.testing.assert_array_equal(y.data, np.broadcast_to(layer.bias.data, y.shape))


def test_running_statistics_move_by_momentum_with_the_unbiased_variance() -> None:
    layer, x = BatchNorm2d(7, momentum=0.25), _images()
    layer(Tensor(x))
    rows = x.reshape(-1, 7).astype(np.float64)
    np.testing.assert_allclose(layer.running_mean.data, 0.25 * rows.mean(axis=0), rtol=1e-5)
    want = 0.75 + 0.25 * rows.var(axis=0, ddof=1)
    np.testing.assert_allclose(layer.running_var.data, want, rtol=1e-5)
    assert layer.num_batches_tracked.data == 1
    assert layer.num_batches_tracked.data.dtype == np.int64


@pytest.mark.parametrize("shape", [(1, 7), (1, 1, 1, 7), (0, 7)])
def test_training_batchnorm_with_one_value_per_channel_is_an_error(shape: tuple[int, ...]) -> None:
    model = Sequential({"norm": BatchNorm2d(7)})
    with pytest.raises(ShapeError, match=r"norm \(BatchNorm2d\).*more than one value per channel"):
        model(Tensor(np.zeros(shape, np.float32)))
    assert model.state_dict()["norm.num_batches_tracked"] == 0
    assert model.eval()(Tensor(np.zeros(shape, np.float32))).shape == shape


def test_running_statistics_never_change_precision_in_silence() -> None:
    layer = BatchNorm2d(3, affine=False)
    with pytest.raises(DTypeError, match="running_mean: expected float64"):
        layer(Tensor(np.ones((2, 4, 4, 3))))


def test_batchnorm_names_the_channels_it_expected() -> None:
    with pytest.raises(ShapeError, match=r"expected shape \(\.\.\., 7\), got \(2, 5\)"):
        BatchNorm2d(7)(Tensor(np.zeros((2, 5), np.float32)))
    with pytest.raises(ShapeError, match=r"expected shape \(N, 7\), got \(2, 3, 7\)"):
        BatchNorm1d(7)(Tensor(np.zeros((2, 3, 7), np.float32)))
    with pytest.raises(ConfigError, match="momentum"):
        BatchNorm2d(7, momentum=2)


def test_batchnorm_of_infinities_is_nan_without_warnings() -> None:
    x = _images()
    x[0, 0, 0, 2] = np.inf
    layer, t = BatchNorm2d(7), Tensor(x, requires_grad=True)
    for rung in ("numpy", "fused"):
        with using(rung):
            y = layer(t)
            y.backward(np.ones_like(x))
        assert np.isnan(y.data[..., 2]).all()
        assert np.isfinite(y.data[..., :2]).all()


# --- dropout --------------------------------------------------------------------------


def test_dropout_keeps_the_expected_share_and_scale() -> None:
    x = np.ones((300, 400), np.float32)
    y = Dropout(0.3, np.random.default_rng(0))(Tensor(x)).data
    kept = y != 0
    assert abs(kept.mean() - 0.7) < 5 * np.sqrt(0.21 / x.size)
    np.testing.assert_allclose(y[kept], 1 / 0.7, rtol=1e-6)


def test_dropout_draws_a_new_mask_per_call_and_per_layer() -> None:
    x, rng = Tensor(np.ones((20, 50), np.float32)), np.random.default_rng(0)
    one, other = Dropout(0.5, rng), Dropout(0.5, rng)
    masks = [one(x).data != 0, one(x).data != 0, other(x).data != 0]
    for i in range(3):
        for j in range(i):
            assert 0.4 < (masks[i] == masks[j]).mean() < 0.6


def test_dropout_sends_gradients_through_what_it_kept() -> None:
    x = Tensor(np.ones((20, 50), np.float32), requires_grad=True)
    y = Dropout(0.5, np.random.default_rng(0))(x)
    y.backward(np.ones_like(y.data))
    np.testing.assert_array_equal(x.grad, y.data)


def test_dropout_of_zero_and_one() -> None:
    x = _images()
    np.testing.assert_array_equal(Dropout(0.0)(Tensor(x)).data, x)
    np.testing.assert_array_equal(Dropout(1.0)(Tensor(x)).data, 0 * x)


@pytest.mark.parametrize("p", [-0.1, 1.1, float("nan")])
def test_dropout_refuses_what_is_no_probability(p: float) -> None:
    with pytest.raises(ConfigError, match="probability p from 0 to 1"):
        Dropout(p)


# --- pooling --------------------------------------------------------------------------


def test_pooling_refuses_windows_that_do_not_fit() -> None:
    unknown: Any = "full"
    with pytest.raises(ShapeError, match="at least 3x3 pixels"):
        MaxPool2d(3)(Tensor(np.zeros((1, 2, 5, 1), np.float32)))
    with pytest.raises(ConfigError, match="at most half the kernel"):
        AvgPool2d(2, padding=2)
    with pytest.raises(ConfigError, match="kernel_size"):
        MaxPool2d(0)
    with pytest.raises(ConfigError, match="same"):
        MaxPool2d(2, padding=unknown)
    with pytest.raises(ShapeError, match="at most 256"):
        MaxPool2d(17)(Tensor(np.zeros((1, 20, 20, 1), np.float32)))
    with pytest.raises(ShapeError, match=r"\(N, H, W, C\)"):
        GlobalAvgPool2d()(Tensor(np.zeros((2, 3), np.float32)))


def test_same_padding_gives_one_output_per_stride() -> None:
    x = Tensor(_images())
    assert MaxPool2d(3, 2, "same")(x).shape == (3, 3, 3, 7)
    assert MaxPool2d(2, 1, "same")(x).shape == (3, 6, 5, 7)
    np.testing.assert_array_equal(MaxPool2d(2, 2, "valid")(x).data, MaxPool2d(2)(x).data)


# --- losses ---------------------------------------------------------------------------


def test_a_label_out_of_range_is_named_with_its_row() -> None:
    logits = Tensor(np.zeros((4, 10), np.float32))
    with pytest.raises(InputError, match=r"row 2 has label 10, but there are 10 classes"):
        cross_entropy(logits, np.array([0, 9, 10, -1]))
    with pytest.raises(InputError, match=r"CrossEntropyLoss: labels: row 0 has label -1"):
        CrossEntropyLoss()(logits, np.array([-1, 0, 0, 0]))


def test_labels_of_another_kind_or_number_are_errors() -> None:
    logits = Tensor(np.zeros((4, 10), np.float32))
    with pytest.raises(DTypeError, match="expected integers"):
        cross_entropy(logits, np.zeros(4))
    with pytest.raises(ShapeError, match=r"expected shape \(4,\)"):
        cross_entropy(logits, np.zeros(3, np.int64))
    with pytest.raises(ShapeError, match="at least one row"):
        cross_entropy(Tensor(np.zeros((0, 10), np.float32)), np.zeros(0, np.int64))
    with pytest.raises(ConfigError, match="label_smoothing"):
        CrossEntropyLoss(1.5)
    assert cross_entropy(logits, np.zeros(4, np.uint8)).shape == ()


@pytest.mark.parametrize("size", [1e4, -1e4])
def test_large_logits_give_finite_losses_and_gradients(size: float) -> None:
    x = Tensor(np.eye(5, dtype=np.float32) * np.float32(size), requires_grad=True)
    loss = cross_entropy(x, np.array([0, 1, 2, 3, 0]))
    loss.backward()
    assert np.isfinite(loss.data)
    assert x.grad is not None
    assert np.isfinite(x.grad).all()
    assert np.abs(x.grad).max() > 0.1


def test_accuracy_counts_the_largest_logit() -> None:
    logits = np.array([[1.0, 3, 2], [5, 0, 0], [0, 0, 1], [0, 1, 0]])
    assert accuracy(Tensor(logits), np.array([1, 0, 2, 2])) == 0.75
    with pytest.raises(ShapeError, match="accuracy"):
        accuracy(logits, np.array([1]))


def test_mean_squared_error_does_not_broadcast() -> None:
    with pytest.raises(ShapeError, match=r"expected shape \(3, 1\), got \(3,\)"):
        mse_loss(Tensor(np.zeros((3, 1), np.float32)), np.zeros(3, np.float32))


def test_probabilities_sum_to_one_for_any_logits() -> None:
    logits = np.array([[1e4, -1e4, 0], [0, 0, -np.inf], [1, 2, 3]], np.float32)
    np.testing.assert_allclose(softmax(Tensor(logits)).data.sum(axis=1), 1, rtol=1e-6)
