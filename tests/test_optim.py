"""Optimisers: equality with torch, flat buffers, takeover, clipping, groups, EMA, exact state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from minidnn.ema import EMA
from minidnn.errors import ConfigError, DTypeError, OptimizerError, ShapeError, StateDictError
from minidnn.module import Buffer, Module, Parameter
from minidnn.optim import SGD, Adam, AdamW, Optimizer, RMSProp, clip_grad_norm, decay_groups

FOREIGN: Any = [np.zeros(3)]
SHAPES = ((3, 5), (7,), (1,), (2, 3, 2, 2))

# ours, torch's name, settings that both understand
PAIRS: dict[str, tuple[Callable[..., Optimizer], str, dict[str, Any]]] = {
    "sgd": (SGD, "SGD", {"lr": 0.1}),
    "sgd_decay": (SGD, "SGD", {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.05}),
    "nesterov": (
        SGD,
        "SGD",
        {"lr": 0.1, "momentum": 0.8, "nesterov": True, "weight_decay": 0.05},
    ),
    "adam": (Adam, "Adam", {"lr": 0.01, "weight_decay": 0.1}),
    "adamw": (AdamW, "AdamW", {"lr": 0.01, "betas": (0.8, 0.9), "weight_decay": 0.1}),
    "rmsprop": (RMSProp, "RMSprop", {"lr": 0.01, "weight_decay": 0.1}),
    "rmsprop_momentum": (RMSProp, "RMSprop", {"lr": 0.01, "momentum": 0.9, "alpha": 0.9}),
}


def _parameters(dtype: Any = np.float32, seed: int = 0) -> list[Parameter]:
    rng = np.random.default_rng(seed)
    return [Parameter(np.asarray(rng.standard_normal(s), dtype)) for s in SHAPES]


def _set_gradients(params: list[Parameter], rng: np.random.Generator) -> None:
    for p in params:
        p.grad = np.asarray(rng.standard_normal(p.shape), p.dtype)


class _Net(Module):
    """Parameters that decay and that do not, and buffers of float and of int."""

    def __init__(self) -> None:
        super().__init__()
        rng = np.random.default_rng(3)
        self.weight = Parameter(np.asarray(rng.standard_normal((3, 2)), np.float32))
        self.bias = Parameter(np.asarray(rng.standard_normal(2), np.float32), decay=False)
        self.mean = Buffer(np.ones(2, np.float32))
        self.count = Buffer(np.zeros((), np.int64))


@pytest.mark.parametrize("name", PAIRS)
def test_twenty_steps_equal_torch(name: str) -> None:
    torch = pytest.importorskip("torch")
    ours, theirs, settings = PAIRS[name]
    params = _parameters()
    mirror = [torch.from_numpy(p.data.copy()).requires_grad_() for p in params]
    optimizer, oracle = ours(params, **settings), getattr(torch.optim, theirs)(mirror, **settings)
    rng = np.random.default_rng(1)
    for step in range(20):
        optimizer.lr = settings["lr"] / (1 + step)
        oracle.param_groups[0]["lr"] = settings["lr"] / (1 + step)
        _set_gradients(params, rng)
        for p, q in zip(params, mirror, strict=True):
            q.grad = torch.tensor(p.grad)
        optimizer.step()
        oracle.step()
    for p, q in zip(params, mirror, strict=True):
        np.testing.assert_allclose(p.data, q.detach().numpy(), rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("name", PAIRS)
def test_state_saved_and_loaded_goes_on_bit_for_bit(name: str) -> None:
    build, _, settings = PAIRS[name]

    def run(optimizer: Optimizer, first: int, last: int) -> None:
        for step in range(first, last):
            _set_gradients(optimizer.params, np.random.default_rng(step))
            optimizer.step()

    whole = build(_parameters(), **settings)
    run(whole, 0, 9)
    start = build(_parameters(), **settings)
    start.lr /= 2
    start.lr *= 2
    run(start, 0, 4)
    saved = {key: value.copy() for key, value in start.state_dict().items()}
    resumed = build(_parameters(seed=5), **{**settings, "lr": 77.0})
    resumed.weights[...] = start.weights
    resumed.load_state_dict(saved)
    run(resumed, 4, 9)
    assert np.array_equal(whole.weights, resumed.weights)
    assert resumed.steps == 9


def test_parameters_and_gradients_are_views_of_one_buffer_and_keep_their_values() -> None:
    params = _parameters()
    values = [p.data.copy() for p in params]
    params[1].grad = np.full(7, 2, np.float32)
    optimizer = SGD(params, 0.1)
    for p, value in zip(params, values, strict=True):
        assert np.array_equal(p.data, value)
        assert np.shares_memory(p.data, optimizer.weights)
        assert p.grad is not None
        assert np.shares_memory(p.grad, optimizer.gradients)
    assert optimizer.gradients.sum() == 14
    assert optimizer.weights.size == sum(p.size for p in params)


def test_backward_adds_into_the_flat_gradient_buffer() -> None:
    p = Parameter(np.ones(3, np.float32))
    optimizer = SGD([p], 0.5)
    for _ in range(2):
        (p * p).sum().backward()
    assert optimizer.gradients.tolist() == [4, 4, 4]
    optimizer.step()
    assert p.data.tolist() == [-1, -1, -1]
    optimizer.zero_grad()
    assert optimizer.gradients.tolist() == [0, 0, 0]


def test_groups_have_their_own_decay_and_rate() -> None:
    params = [Parameter(np.ones(2, np.float32)) for _ in range(4)]
    groups: list[dict[str, Any]] = [
        {"params": params[:1]},
        {"params": params[1:2], "weight_decay": 0.5},
        {"params": params[2:3], "lr_scale": 0.0},
        {"params": []},
        {"params": params[3:], "lr_scale": 2.0, "weight_decay": 0.0},
    ]
    optimizer = SGD(groups, lr=0.5, weight_decay=1.0)
    optimizer.step()
    assert [p.data[0] for p in params] == [0.5, 0.75, 1.0, 1.0]


def test_frozen_parameters_are_left_alone() -> None:
    params = _parameters()
    params[0].requires_grad = False
    before = params[0].data.copy()
    SGD(params, 0.1, weight_decay=0.5).step()
    assert np.array_equal(params[0].data, before)


def test_a_newer_optimizer_takes_over_and_the_older_says_so() -> None:
    params = _parameters()
    old = SGD(params, 0.1)
    new = Adam(params, 0.1)
    before = new.weights.copy()
    for call in (old.step, old.zero_grad):
        with pytest.raises(OptimizerError, match="newer optimiser took it over"):
            call()
    assert np.array_equal(new.weights, before)
    new.step()


@pytest.mark.parametrize("how", ["assigned", "converted", "frozen"])
def test_step_refuses_parameters_that_left_the_buffer(how: str) -> None:
    net = _Net()
    optimizer = SGD(net.parameters(), 0.1)
    if how == "assigned":
        net.weight.data = net.weight.data * 2
    elif how == "converted":
        net.astype(np.float64)
    else:
        net.weight.requires_grad = False
    with pytest.raises(OptimizerError, match=r"parameter 0 of shape \(3, 2\)"):
        optimizer.step()


def test_replaced_gradients_are_taken_in() -> None:
    params = _parameters()
    optimizer = SGD(params, 1.0)
    optimizer.gradients.fill(1)
    params[0].grad = None
    params[1].grad = np.full(7, 3, np.float32)
    before = optimizer.weights.copy()
    optimizer.step()
    change = before - optimizer.weights
    np.testing.assert_allclose(change[:23], [0.0] * 15 + [3.0] * 7 + [1.0], atol=1e-6)
    params[2].grad = np.zeros(2, np.float32)
    with pytest.raises(ShapeError, match="parameter 2"):
        optimizer.step()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: SGD([], 0.1), "at least one parameter"),
        (lambda: SGD([{"params": []}], 0.1), "at least one parameter"),
        (lambda: SGD(_parameters(), -0.1), "lr: "),
        (lambda: SGD(_parameters(), float("nan")), "lr: "),
        (lambda: SGD(_parameters(), 0.1, momentum=1.0), "momentum: "),
        (lambda: SGD(_parameters(), 0.1, nesterov=True), "nesterov: "),
        (lambda: SGD(_parameters(), 0.1, weight_decay=-1), "weight_decay: "),
        (lambda: Adam(_parameters(), betas=(0.9, 1.0)), "beta2: "),
        (lambda: RMSProp(_parameters(), alpha=-1), "alpha: "),
        (lambda: SGD(_parameters()[:1] * 2, 0.1), "given twice"),
        (lambda: SGD([{"params": _parameters(), "rate": 1}], 0.1), r"\['rate'\]"),
        (lambda: SGD(FOREIGN, 0.1), "expected Parameters, got ndarray"),
        (lambda: EMA(_Net(), 1.0), "decay: "),
    ],
)
def test_bad_settings_are_named_errors(build: Callable[[], Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build()


def test_mixed_dtypes_are_refused() -> None:
    with pytest.raises(DTypeError, match="one dtype"):
        SGD([*_parameters(), *_parameters(np.float64)], 0.1)


def test_state_of_another_optimizer_is_refused_and_nothing_changes() -> None:
    optimizer = SGD(_parameters(), 0.1)
    with pytest.raises(StateDictError, match=r"missing: momentum.*unexpected: mean"):
        optimizer.load_state_dict(Adam(_parameters()).state_dict())
    short = optimizer.state_dict() | {"momentum": np.ones(3, np.float32)}
    with pytest.raises(StateDictError, match="momentum: expected"):
        optimizer.load_state_dict(short)
    assert not optimizer.state["momentum"].any()


def test_clipping_scales_to_the_norm_and_leaves_small_and_broken_gradients() -> None:
    params = _parameters()
    optimizer = SGD(params, 0.1)
    optimizer.gradients[:3] = 3, 4, 12
    assert clip_grad_norm(optimizer, 100) == pytest.approx(13)
    assert optimizer.gradients[:3].tolist() == [3, 4, 12]
    assert clip_grad_norm(optimizer, 1) == pytest.approx(13)
    np.testing.assert_allclose(optimizer.gradients[:3], np.array([3, 4, 12]) / 13, rtol=1e-5)
    optimizer.gradients[1] = np.nan
    kept = optimizer.gradients.copy()
    assert np.isnan(clip_grad_norm(optimizer, 1))
    assert np.array_equal(optimizer.gradients, kept, equal_nan=True)


def test_decay_groups_spare_what_must_not_decay() -> None:
    net = _Net()
    decays, spared = decay_groups(net, 0.25)
    assert (decays["params"], decays["weight_decay"]) == ([net.weight], 0.25)
    assert (spared["params"], spared["weight_decay"]) == ([net.bias], 0.0)


def test_ema_follows_its_formula_and_puts_the_weights_back() -> None:
    net = _Net()
    optimizer = SGD(net.parameters(), 1.0)
    ema = EMA(net, 0.75)
    want = {name: value.astype(np.float64) for name, value in net.state_dict().items()}
    rng = np.random.default_rng(0)
    for _ in range(5):
        optimizer.weights += np.asarray(rng.standard_normal(8), np.float32)
        net.mean.data += 1
        net.count.data += 1
        ema.update()
        for name, value in net.state_dict().items():
            want[name] = 0.75 * want[name] + 0.25 * value
    raw = {name: value.copy() for name, value in net.state_dict().items()}
    with ema.applied():
        for name in ("weight", "bias", "mean"):
            np.testing.assert_allclose(net.state_dict()[name], want[name], rtol=1e-6, atol=1e-6)
        assert net.count.data == 5
        optimizer.collect()  # the averages are written in place: the views still hold
    for name, value in net.state_dict().items():
        assert np.array_equal(value, raw[name])


def test_ema_puts_the_weights_back_after_an_error() -> None:
    net = _Net()
    ema = EMA(net, 0.5)
    net.weight.data += 1
    before = net.weight.data.copy()
    with pytest.raises(RuntimeError, match="inside"), ema.applied():
        raise RuntimeError("inside")
    assert np.array_equal(net.weight.data, before)


def test_ema_state_round_trip_is_exact_and_checked() -> None:
    net, other = _Net(), _Net()
    ema, copy = EMA(net, 0.9, warmup=True), EMA(other, 0.9, warmup=True)
    net.weight.data += 1
    ema.update()
    copy.load_state_dict({name: value.copy() for name, value in ema.state_dict().items()})
    other.weight.data[...] = net.weight.data
    ema.update()
    copy.update()
    assert copy.updates == 2
    assert np.array_equal(ema.average["weight"], copy.average["weight"])
    with pytest.raises(StateDictError, match="missing: bias"):
        copy.load_state_dict({n: v for n, v in ema.state_dict().items() if n != "bias"})


def test_ema_warm_up_forgets_the_start_quickly() -> None:
    net = _Net()
    net.bias.data[...] = 0
    slow, quick = EMA(net, 0.999), EMA(net, 0.999, warmup=True)
    net.bias.data[...] = 1
    for _ in range(20):
        slow.update()
        quick.update()
    assert slow.average["bias"][0] < 0.03
    assert quick.average["bias"][0] > 0.9
