"""Activations, normalisation, pooling and losses against PyTorch: outputs and all gradients.

Both sides compute in float64, so that a difference is a difference of meaning.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from minidnn import (
    AvgPool2d,
    BatchNorm1d,
    BatchNorm2d,
    CrossEntropyLoss,
    GlobalAvgPool2d,
    LeakyReLU,
    MaxPool2d,
    Module,
    MSELoss,
    PReLU,
    ReLU,
    Tensor,
    losses,
)
from tests.cases import signed

torch: Any = pytest.importorskip("torch")
SEEDS = range(8)


def _to_torch(x: Any) -> Any:
    """NHWC -> NCHW."""
    return torch.from_numpy(np.moveaxis(x, -1, 1).copy() if x.ndim > 2 else x.copy())


def _to_numpy(t: Any) -> Any:
    a = t.detach().numpy()
    return np.moveaxis(a, 1, -1) if a.ndim > 2 else a


def _grad(t: Tensor) -> Any:
    assert t.grad is not None
    return t.grad


def _agree(layer: Module, reference: Any, x: Any, rng: np.random.Generator) -> None:
    """Forward and backward of both on the same input and output gradient."""
    layer.astype(np.float64)
    reference.double()
    ours, theirs = Tensor(x, requires_grad=True), _to_torch(x).requires_grad_()
    y, want = layer(ours), reference(theirs)
    np.testing.assert_allclose(y.data, _to_numpy(want), rtol=1e-10, atol=1e-12)
    dy = rng.standard_normal(y.shape)
    y.backward(dy)
    want.backward(_to_torch(dy))
    np.testing.assert_allclose(_grad(ours), _to_numpy(theirs.grad), rtol=1e-9, atol=1e-11)
    pairs = dict(reference.named_parameters())
    assert {name for name, _ in layer.named_parameters()} == set(pairs)
    for name, p in layer.named_parameters():
        np.testing.assert_allclose(_grad(p), pairs[name].grad.numpy(), rtol=1e-9, atol=1e-11)


def _integer(rng: np.random.Generator, low: int, high: int) -> int:
    return int(rng.integers(low, high))


def _image(rng: np.random.Generator, least: int = 1) -> Any:
    n, c = _integer(rng, 1, 5), int(rng.choice([1, 7, 16, 17, 33]))
    return signed(rng, n, _integer(rng, least, 12), _integer(rng, least, 12), c)


@pytest.mark.parametrize("seed", SEEDS)
def test_activations(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = _image(rng)
    slope = rng.uniform(0, 0.5)
    _agree(ReLU(), torch.nn.ReLU(), x, rng)
    _agree(LeakyReLU(slope), torch.nn.LeakyReLU(slope), x, rng)
    channels = int(rng.choice([1, x.shape[-1]]))
    _agree(PReLU(channels, slope), torch.nn.PReLU(channels, np.float32(slope)), x, rng)


@pytest.mark.parametrize("seed", SEEDS)
def test_batchnorm_in_training_evaluation_and_running_statistics(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = _image(rng, least=2) if seed % 2 else signed(rng, _integer(rng, 2, 20), 7)
    x = x * rng.uniform(0.1, 5) + rng.uniform(-3, 3)
    kind, reference = (
        (BatchNorm2d, torch.nn.BatchNorm2d)
        if x.ndim == 4
        else (
            BatchNorm1d,
            torch.nn.BatchNorm1d,
        )
    )
    eps, momentum, affine = 10.0 ** rng.integers(-6, -2), rng.uniform(0, 1), bool(seed % 4)
    ours = kind(x.shape[-1], eps, momentum, affine)
    theirs = reference(x.shape[-1], float(eps), float(momentum), affine)
    if affine:
        for name in ("weight", "bias"):
            value = rng.standard_normal(x.shape[-1]).astype(np.float32)
            getattr(ours, name).data[...] = value
            getattr(theirs, name).data = torch.from_numpy(value.copy())
    _agree(ours, theirs, x, rng)
    for name, buffer in theirs.named_buffers():
        np.testing.assert_allclose(ours.state_dict()[name], buffer.numpy(), rtol=1e-10)
    ours.eval()
    theirs.eval()
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        p.grad, q.grad = None, None
    _agree(ours, theirs, x, rng)


@pytest.mark.parametrize("seed", range(40))
def test_pooling(seed: int) -> None:
    rng = np.random.default_rng(seed)
    size = _integer(rng, 1, 5), _integer(rng, 1, 5)
    x = _image(rng, least=max(size))
    stride = _integer(rng, 1, 5), _integer(rng, 1, 5)
    padding = _integer(rng, 0, size[0] // 2 + 1), _integer(rng, 0, size[1] // 2 + 1)
    ceil = bool(rng.integers(2))
    ties = np.round(x * 2)  # equal maxima: both must take the first
    for image in (x, ties):
        _agree(
            MaxPool2d(size, stride, padding, ceil),
            torch.nn.MaxPool2d(size, stride, padding, ceil_mode=ceil),
            image,
            rng,
        )
    for counted in (True, False):
        _agree(
            AvgPool2d(size, stride, padding, ceil, counted),
            torch.nn.AvgPool2d(size, stride, padding, ceil, counted),
            x,
            rng,
        )


@pytest.mark.parametrize("seed", SEEDS)
def test_global_average_pooling(seed: int) -> None:
    rng = np.random.default_rng(seed)
    reference = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    _agree(GlobalAvgPool2d(), reference, _image(rng), rng)


def test_max_pool_hands_on_nan_and_its_gradient_as_torch_does() -> None:
    x = signed(np.random.default_rng(0), 2, 6, 6, 5)
    x[0, 1, 1, 2] = x[1, 3, 4, 0] = x[1, 3, 5, 0] = np.nan
    ours, theirs = Tensor(x, requires_grad=True), _to_torch(x).requires_grad_()
    y, want = MaxPool2d(3, 2)(ours), torch.nn.MaxPool2d(3, 2)(theirs)
    np.testing.assert_array_equal(y.data, _to_numpy(want))
    y.backward(np.ones(y.shape))
    want.backward(torch.ones_like(want))
    np.testing.assert_array_equal(_grad(ours), _to_numpy(theirs.grad))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("size", [1.0, 1e4])
def test_cross_entropy(seed: int, smoothing: float, size: float) -> None:
    rng = np.random.default_rng(seed)
    n, classes = _integer(rng, 1, 70), _integer(rng, 1, 40)
    logits, labels = signed(rng, n, classes) * size, rng.integers(0, classes, n)
    ours, theirs = Tensor(logits, requires_grad=True), _to_torch(logits).requires_grad_()
    loss = CrossEntropyLoss(smoothing)(ours, labels)
    want = torch.nn.CrossEntropyLoss(label_smoothing=smoothing)(theirs, torch.from_numpy(labels))
    np.testing.assert_allclose(loss.item(), want.item(), rtol=1e-10)
    (loss * 3).backward()
    (want * 3).backward()
    np.testing.assert_allclose(_grad(ours), theirs.grad.numpy(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_of_an_impossible_class(smoothing: float) -> None:
    logits = np.array([[0.5, -np.inf, 1.0], [2.0, 0.0, -np.inf]])
    for labels in (np.array([0, 1]), np.array([0, 2])):
        got = CrossEntropyLoss(smoothing)(Tensor(logits), labels)
        criterion = torch.nn.CrossEntropyLoss(label_smoothing=smoothing)
        want = criterion(torch.from_numpy(logits), torch.from_numpy(labels))
        np.testing.assert_allclose(got.item(), want.item(), rtol=1e-12)


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_softmax_and_its_logarithm(name: str) -> None:
    rng = np.random.default_rng(1)
    x, dy = signed(rng, 5, 7) * 20, rng.standard_normal((5, 7))
    ours, theirs = Tensor(x, requires_grad=True), _to_torch(x).requires_grad_()
    y, want = getattr(losses, name)(ours), getattr(torch, name)(theirs, dim=-1)
    np.testing.assert_allclose(y.data, want.detach().numpy(), rtol=1e-10)
    y.backward(dy)
    want.backward(torch.from_numpy(dy))
    np.testing.assert_allclose(_grad(ours), theirs.grad.numpy(), rtol=1e-8, atol=1e-12)


def test_mean_squared_error() -> None:
    rng = np.random.default_rng(2)
    x, target = signed(rng, 5, 7), signed(rng, 5, 7)
    ours, theirs = Tensor(x, requires_grad=True), _to_torch(x).requires_grad_()
    loss, want = MSELoss()(ours, target), torch.nn.MSELoss()(theirs, torch.from_numpy(target))
    np.testing.assert_allclose(loss.item(), want.item(), rtol=1e-12)
    loss.backward()
    want.backward()
    np.testing.assert_allclose(_grad(ours), theirs.grad.numpy(), rtol=1e-12)
