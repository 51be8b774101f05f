"""Fused training equals the plain layers, in every model, and is switched off as easily."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import minidnn
from minidnn import Module, Sequential, Tensor
from minidnn.errors import GraphError
from minidnn.kernels.simd import LANES
from minidnn.models.quicknet import QuickNet
from minidnn.tensor import recording
from tests.closeness import assert_close


def _block(c_in: int, c_out: int, act: Module | None = None, bias: bool = False) -> Sequential:
    return Sequential(
        minidnn.SeparableConv2d(c_in, c_out, bias=bias),
        minidnn.BatchNorm2d(c_out),
        act or minidnn.PReLU(c_out),
    )


def _blocks(act: Any, *, bias: bool = False) -> Sequential:
    """Two blocks, wide enough to go image by image where there are as many images."""
    c = 2 * LANES
    return Sequential(_block(3, c, act(), bias), _block(c, c, act(), bias))


class Residual(Module):
    """The block's output is read by one op, the sum's by two."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = _block(3, 16), _block(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.first(x)
        total: Tensor = y + self.second(y)
        return total


class Branching(Module):
    """Concatenation, and two exits."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.tail = _block(3, 5), _block(3, 7), _block(12, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        both = minidnn.concat([self.left(x), self.right(x)])
        return both, self.tail(both)


class Shared(Module):
    """What the batch norm gives is read twice, so it must not be activated in place."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.act = minidnn.BatchNorm2d(3), minidnn.PReLU(3)

    def forward(self, x: Tensor) -> Tensor:
        z: Tensor = self.norm(x)
        product: Tensor = z * self.act(z)
        return product


class Wandering(Module):
    """Goes another way once it has been traced."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.act, self.skip = minidnn.BatchNorm2d(3), minidnn.PReLU(3), False

    def forward(self, x: Tensor) -> Tensor:
        z: Tensor = self.norm(x)
        return z if self.skip else self.act(z)


# How to make a model, and how long the chains are that it is joined into.
MODELS: dict[str, tuple[Any, list[int]]] = {
    "residual": (Residual, [2, 2, 2, 2]),
    "branching": (Branching, [2, 2, 2, 2, 2, 2]),
    "prelu": (lambda: _blocks(minidnn.PReLU), [2, 4, 2]),
    "relu": (lambda: _blocks(minidnn.ReLU), [2, 4, 2]),
    "leaky_relu_and_bias": (lambda: _blocks(minidnn.LeakyReLU, bias=True), [2, 4, 2]),
    "pooled": (
        lambda: Sequential(
            minidnn.BatchNorm2d(3), minidnn.PReLU(3), minidnn.MaxPool2d(2), _blocks(minidnn.ReLU)
        ),
        [3, 2, 4, 2],
    ),
    "pooled_without_activation": (
        lambda: Sequential(minidnn.BatchNorm2d(3), minidnn.MaxPool2d(3, 2, padding=1)),
        [2],
    ),
    "no_activation": (
        lambda: Sequential(minidnn.BatchNorm2d(3), minidnn.SeparableConv2d(3, 5)),
        [3],
    ),
    "other_convolutions": (
        lambda: Sequential(
            minidnn.BatchNorm2d(3),
            minidnn.PReLU(3),
            minidnn.SeparableConv2d(3, 5, 5),
            minidnn.BatchNorm2d(5),
            minidnn.ReLU(),
            minidnn.SeparableConv2d(5, 4, 3, 2),
            minidnn.Conv2d(4, 4, 3, bias=False),
            minidnn.BatchNorm2d(4),
            minidnn.LeakyReLU(0.2),
        ),
        [2, 2, 2],
    ),
    "shared": (Shared, []),
    "one_slope": (lambda: Sequential(minidnn.BatchNorm2d(3), minidnn.PReLU()), [2]),
    "rows": (lambda: Sequential(minidnn.BatchNorm1d(3), minidnn.PReLU(3)), [2]),
    "no_affine": (lambda: Sequential(minidnn.BatchNorm2d(3, affine=False), minidnn.PReLU(3)), [2]),
    "per_element": (lambda: Sequential(minidnn.BatchNorm2d(3), minidnn.PReLU((6, 5, 3))), []),
    "used_twice": (lambda: Sequential(*[minidnn.BatchNorm2d(3), minidnn.PReLU(3)] * 2), []),
}


def _model(name: str) -> tuple[Module, tuple[int, ...]]:
    minidnn.init.manual_seed(3)
    model: Module = MODELS[name][0]()
    return model, (4, 3) if name == "rows" else (4, 6, 5, 3)


def _gradients(model: Module, x: np.ndarray[Any, Any]) -> dict[str, Any]:
    """Return outputs, gradients and running statistics of one training pass."""
    for p in model.parameters():
        p.grad = None
    outputs = model.train()(Tensor(x))
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    loss = outputs[0].sum() * 0.0
    for y in outputs:
        weights = np.random.default_rng(8).standard_normal(y.shape).astype(x.dtype)
        loss = loss + (y * weights).sum()
    loss.backward()
    found = {f"output {i}": y.data for i, y in enumerate(outputs)}
    found |= {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return found | {name: b.data.copy() for name, b in model.named_buffers()}


def _assert_equal(got: dict[str, Any], want: dict[str, Any], *, terms: int) -> None:
    for key, value in want.items():
        if key.endswith("pointwise.bias"):  # the batch norm behind takes any bias away again
            assert np.abs(value).max() < 1e-10
            assert np.abs(got[key]).max() < 1e-3
        elif value.dtype == np.float64:
            assert_close(got[key], value, terms=terms, dtype=np.float32, what=key)


@pytest.mark.parametrize("name", MODELS)
def test_fused_training_equals_its_twin_forward_and_backward(name: str) -> None:
    x = np.random.default_rng(1).standard_normal(_model(name)[1]).astype(np.float32)
    plain, _ = _model(name)
    want = _gradients(plain.astype(np.float64), x.astype(np.float64))
    fused, shape = _model(name)
    assert [len(chain) for chain in minidnn.fuse(fused, shape)] == MODELS[name][1]
    got = _gradients(fused, x)
    assert got.keys() == want.keys()
    _assert_equal(got, want, terms=2000)


@pytest.mark.parametrize("name", ["prelu", "relu", "leaky_relu_and_bias", "pooled", "residual"])
def test_a_batch_that_goes_image_by_image_equals_its_twin_too(name: str) -> None:
    x = np.random.default_rng(1).standard_normal((17, 13, 12, 3)).astype(np.float32)
    plain, fused = _model(name)[0], _model(name)[0]
    want = _gradients(plain.astype(np.float64), x.astype(np.float64))
    minidnn.fuse(fused, (2, *x.shape[1:]))
    got = _gradients(fused, x)
    _assert_equal(got, want, terms=20_000)


def test_the_blocks_of_quicknet_become_one_op_each() -> None:
    model = QuickNet(stem=16, stages=(16, 32), blocks=2)
    chains = minidnn.fuse(model, (2, 32, 32, 3))
    assert chains[0] == tuple(
        f"features.{path}"
        for path in ("stem.norm", "stem.act", "s1_1.conv.depthwise", "s1_1.conv.pointwise")
    )
    ran = []
    with recording(lambda node, _: ran.append(node.op.name)):
        model(Tensor(np.ones((2, 32, 32, 3), np.float32)))
    assert ran.count("batchnorm_prelu_separable") == 3
    assert not {"prelu", "batchnorm", "depthwise", "pointwise"} & set(ran)
    minidnn.unfuse(model)
    ran.clear()
    with recording(lambda node, _: ran.append(node.op.name)):
        model(Tensor(np.ones((2, 32, 32, 3), np.float32)))
    assert ran.count("prelu") == ran.count("batchnorm") == 5


def test_evaluation_and_tracing_of_a_fused_model_run_the_plain_layers() -> None:
    model, shape = _model("residual")
    before = [step.op.name for step in minidnn.trace(model, shape).steps]
    x = np.random.default_rng(2).standard_normal(shape).astype(np.float32)
    want = model.eval()(Tensor(x)).data
    minidnn.fuse(model, shape)
    assert [step.op.name for step in minidnn.trace(model, shape).steps] == before
    with minidnn.no_grad():
        assert np.array_equal(model.eval()(Tensor(x)).data, want)
        model.train()(Tensor(x))  # off the tape nothing is fused, and nothing left over
    model(Tensor(x))


def test_fusing_leaves_parameters_buffers_and_names_as_they_were() -> None:
    model, shape = _model("branching")
    before = {name: array.copy() for name, array in model.state_dict().items()}
    minidnn.fuse(model, shape)
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(np.array_equal(after[name], before[name]) for name in before)


def test_a_layer_with_a_hook_is_left_alone() -> None:
    model, shape = _model("one_slope")
    assert isinstance(model, Sequential)
    model[0].register_forward_hook(lambda *_: None)
    assert minidnn.fuse(model, shape) == []


def test_a_model_that_takes_another_way_than_traced_is_an_error_not_a_wrong_result() -> None:
    model = Wandering()
    minidnn.fuse(model, (2, 3, 3, 3))
    x = Tensor(np.random.default_rng(4).standard_normal((2, 3, 3, 3)).astype(np.float32))
    model.skip = True
    with pytest.raises(GraphError, match="unfuse"):
        model(x).sum()
    model.skip = False
    model(x).sum().backward()


def test_between_fused_layers_a_value_still_has_its_shape() -> None:
    model = Sequential(minidnn.BatchNorm2d(3), minidnn.SeparableConv2d(3, 4, 3, padding="valid"))
    minidnn.fuse(model, (2, 6, 5, 3))
    x = Tensor(np.random.default_rng(4).standard_normal((2, 6, 5, 3)).astype(np.float32))
    z = model[0](x)
    assert (z.shape, z.ndim) == ((2, 6, 5, 3), 4)
    conv = model[1]
    assert isinstance(conv, minidnn.SeparableConv2d)
    assert conv.depthwise(z).shape == (2, 4, 3, 3)
    assert conv(z).shape == (2, 4, 3, 4)


def test_two_forwards_then_two_backwards() -> None:
    model, shape = _model("residual")
    x = np.random.default_rng(5).standard_normal(shape).astype(np.float32)
    minidnn.fuse(model, shape)
    first, second = model(Tensor(x)).sum(), model(Tensor(-x)).sum()
    first.backward()
    second.backward()
    together = [p.grad for p in model.parameters()]
    assert all(grad is not None and np.isfinite(grad).all() for grad in together)
