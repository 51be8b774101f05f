"""Weights to and from PyTorch: same outputs both ways, nothing copied in by halves."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import numpy as np
import pytest

from minidnn.errors import ConfigError, StateDictError
from minidnn.layers.activation import PReLU
from minidnn.layers.conv import Conv2d, DepthwiseConv2d, PointwiseConv2d
from minidnn.layers.dropout import Dropout
from minidnn.layers.linear import Flatten, Linear
from minidnn.layers.norm import BatchNorm1d, BatchNorm2d
from minidnn.layers.pool import MaxPool2d
from minidnn.models.quicknet import QuickNet
from minidnn.module import Module, Sequential
from minidnn.tensor import Tensor
from minidnn.torch_state import load_torch_state_dict, to_torch_state_dict

X = np.asarray(np.random.default_rng(0).standard_normal((3, 9, 7, 4)), np.float32)


def _scramble(model: Module, seed: int = 3) -> None:
    """Give every array values of its own, so that no two are equal by chance."""
    rng = np.random.default_rng(seed)
    for name, array in model.state_dict().items():
        if array.dtype.kind == "f":
            array[...] = rng.normal(0, 0.5, array.shape)
            if name.endswith("var"):
                array[...] = np.abs(array) + 0.5


def _mixed() -> Sequential:
    """Every kind of layer, with batch norm and PReLU behind a Flatten too."""
    return Sequential(
        {
            "conv": Conv2d(4, 6, (3, 2), stride=2, padding=1, groups=2),
            "norm": BatchNorm2d(6),
            "act": PReLU(6),
            "depthwise": DepthwiseConv2d(6, multiplier=2, bias=True),
            "pointwise": PointwiseConv2d(12, 5, bias=True),
            "flat": Flatten(),
            "norm1": BatchNorm1d(5 * 4 * 5),
            "drop": Dropout(0.5),
            "act1": PReLU(5 * 4 * 5),
            "linear": Linear(5 * 4 * 5, 8),
            "act2": PReLU(1),
            "last": Linear(8, 3, bias=False),
        }
    )


def _mixed_torch() -> Any:
    nn = pytest.importorskip("torch").nn
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(4, 6, (3, 2), stride=2, padding=1, groups=2),
            norm=nn.BatchNorm2d(6),
            act=nn.PReLU(6),
            depthwise=nn.Conv2d(6, 12, 3, padding=1, groups=6),
            pointwise=nn.Conv2d(12, 5, 1),
            flat=nn.Flatten(),
            norm1=nn.BatchNorm1d(5 * 4 * 5),
            drop=nn.Dropout(0.5),
            act1=nn.PReLU(5 * 4 * 5),
            linear=nn.Linear(5 * 4 * 5, 8),
            act2=nn.PReLU(1),
            last=nn.Linear(8, 3, bias=False),
        )
    )


def _same_outputs(ours: Any, theirs: Any, x: Any) -> None:
    torch = pytest.importorskip("torch")
    with torch.no_grad():
        want = theirs.eval()(torch.from_numpy(x.transpose(0, 3, 1, 2).copy())).numpy()
    assert np.abs(want).max() > 0.1
    np.testing.assert_allclose(ours.eval()(Tensor(x)).data, want, rtol=1e-3, atol=1e-4)


def _randomise(model: Any) -> None:
    torch = pytest.importorskip("torch")
    generator = torch.Generator().manual_seed(0)
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            tensor.normal_(0, 0.3, generator=generator)
            if name.endswith("var"):
                tensor.abs_().add_(0.5)


def test_torch_weights_give_torch_outputs() -> None:
    ours, theirs = _mixed(), _mixed_torch()
    _randomise(theirs)
    load_torch_state_dict(ours, theirs.state_dict(), input_shape=X.shape)
    _same_outputs(ours, theirs, X)


def test_our_weights_give_our_outputs_in_torch() -> None:
    torch = pytest.importorskip("torch")
    ours, theirs = _mixed(), _mixed_torch()
    _scramble(ours)
    state = to_torch_state_dict(ours, input_shape=X.shape)
    theirs.load_state_dict({name: torch.from_numpy(a) for name, a in state.items()})
    _same_outputs(ours, theirs, X)


def test_quicknet_both_ways() -> None:
    torch = pytest.importorskip("torch")
    from tests import torch_models

    small: dict[str, Any] = {"stem": 8, "stages": (16, 32), "blocks": 2}
    ours, theirs = QuickNet(**small), torch_models.quicknet(**small)
    x = np.asarray(np.random.default_rng(1).standard_normal((2, 20, 20, 3)), np.float32)
    load_torch_state_dict(ours, theirs.state_dict())
    for p in ours.parameters():
        p.data *= 1.1
    state = to_torch_state_dict(ours)
    theirs.load_state_dict({name: torch.from_numpy(a) for name, a in state.items()})
    _same_outputs(ours, theirs, x)


def test_round_trip_is_exact_without_torch() -> None:
    ours, copy = _mixed(), _mixed()
    _scramble(ours)
    _scramble(copy, seed=4)
    kept = copy.state_dict()["drop.seed"].copy()
    load_torch_state_dict(copy, to_torch_state_dict(ours, X.shape), X.shape)
    for name, array in ours.state_dict().items():
        if not name.startswith("drop"):
            assert np.array_equal(copy.state_dict()[name], array), name
    assert copy.state_dict()["drop.seed"] == kept


def test_a_reshape_in_the_models_own_forward_is_found_too() -> None:
    class Own(Module):
        def __init__(self) -> None:
            super().__init__()
            self.pool = MaxPool2d(2)
            self.linear = Linear(4 * 3 * 4, 2)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.linear(self.pool(x).reshape(len(x), -1) * 2.0)
            return y

    ours = Own()
    weight = to_torch_state_dict(ours, X.shape)["linear.weight"]
    want = ours.linear.weight.data.reshape(4, 3, 4, 2).transpose(3, 2, 0, 1).reshape(2, 48)
    assert np.array_equal(weight, want)


def test_a_linear_behind_a_linear_is_only_transposed() -> None:
    net = Sequential(Flatten(), Linear(9 * 7 * 4, 6), Linear(6, 2))
    state = to_torch_state_dict(net, X.shape)
    assert np.array_equal(state["2.weight"], net.state_dict()["2.weight"].T)
    assert np.array_equal(state["1.bias"], net.state_dict()["1.bias"])


def test_a_shared_parameter_goes_by_its_first_name() -> None:
    net = Sequential(Linear(4, 4), Linear(4, 4))
    net[1].weight = net[0].weight  # type: ignore[attr-defined]
    state = to_torch_state_dict(net)
    assert sorted(state) == ["0.bias", "0.weight", "1.bias"]
    load_torch_state_dict(net, {name: a + 1 for name, a in state.items()})
    assert np.array_equal(net.state_dict()["0.weight"], state["0.weight"].T + 1)


def test_flattened_models_must_say_their_input_shape() -> None:
    with pytest.raises(ConfigError, match="input_shape"):
        to_torch_state_dict(_mixed())


@pytest.mark.parametrize("how", ["shape", "layout", "missing", "unexpected"])
def test_a_state_that_does_not_fit_changes_nothing(how: str) -> None:
    net = Sequential({"conv": Conv2d(4, 6, 3), "norm": BatchNorm2d(6)})
    state = {name: a + 1 for name, a in to_torch_state_dict(net).items()}
    if how == "shape":
        state["conv.weight"] = state["conv.weight"][:5]
    elif how == "layout":
        state["conv.weight"] = net.state_dict()["conv.weight"]
    elif how == "missing":
        del state["conv.weight"]
    else:
        state["conv.weight.extra"] = state["conv.weight"]
    before = {name: a.copy() for name, a in net.state_dict().items()}
    with pytest.raises(StateDictError, match=r"conv\.weight"):
        load_torch_state_dict(net, state)
    assert all(np.array_equal(a, before[name]) for name, a in net.state_dict().items())
