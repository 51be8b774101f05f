"""Modules: the tree, state dicts, modes, error paths, and tracing the graph of ops."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from minidnn import PReLU, concat, trace
from minidnn.errors import ShapeError, StateDictError
from minidnn.module import Buffer, Module, Parameter, Sequential
from minidnn.optim import SGD, Adam
from minidnn.tensor import Tensor


class Dense(Module):
    """A linear layer of plain arithmetic, so that these tests need no kernel but PReLU's."""

    def __init__(self, n_in: int, n_out: int, seed: int = 0) -> None:
        super().__init__()
        rng = np.random.default_rng(seed)
        self.weight = Parameter(np.asarray(rng.normal(0, n_in**-0.5, (n_in, n_out)), np.float32))
        self.bias = Parameter(np.zeros(n_out, np.float32), decay=False)
        self.calls = Buffer(np.zeros((), np.int64))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.calls.data += 1
        return x @ self.weight + self.bias


class Net(Module):
    """Children as attributes, in a list, in a Sequential, and one of them twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first = Dense(4, 6)
        self.body = Sequential(PReLU(6), Sequential({"mid": Dense(6, 6, 1), "act": PReLU(1)}))
        self.heads = [Dense(6, 2, 2), Dense(6, 3, 3)]
        self.same = self.first
        self.scale = Parameter(np.ones(1, np.float32))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.body(self.first(x)) * self.scale
        return self.heads[0](x), self.heads[1](x)


X = np.asarray(np.random.default_rng(0).standard_normal((5, 4)), np.float32)


def test_modules_come_in_order_of_declaration_each_once() -> None:
    assert [name for name, _ in Net().named_modules()] == [
        "",
        "first",
        "body",
        "body.0",
        "body.1",
        "body.1.mid",
        "body.1.act",
        "heads.0",
        "heads.1",
    ]


def test_parameters_and_buffers_have_dotted_names() -> None:
    net = Net()
    names = [name for name, _ in net.named_parameters()]
    assert names[:3] == ["scale", "first.weight", "first.bias"]
    assert names[-2:] == ["heads.1.weight", "heads.1.bias"]
    assert len(net.parameters()) == len(names) == 11
    assert [n for n, _ in net.named_buffers()] == [
        "first.calls",
        "body.1.mid.calls",
        "heads.0.calls",
        "heads.1.calls",
    ]
    assert list(net.state_dict()) == names + [n for n, _ in net.named_buffers()]


def test_state_dict_round_trip_is_exact_and_in_place() -> None:
    net, other = Net(), Net()
    for p in net.parameters():
        p.data += 0.5
    net(Tensor(X))
    arrays = {name: id(a) for name, a in other.state_dict().items()}
    other.load_state_dict(net.state_dict())
    for name, array in other.state_dict().items():
        assert np.array_equal(array, net.state_dict()[name])
        assert id(array) == arrays[name]
    for y, z in zip(net.eval()(Tensor(X)), other.eval()(Tensor(X)), strict=True):
        assert np.array_equal(y.data, z.data)


@pytest.mark.parametrize("how", ["missing", "unexpected", "shape", "dtype"])
def test_a_state_dict_that_does_not_fit_changes_nothing(how: str) -> None:
    net = Net()
    state = {name: a + 1 for name, a in net.state_dict().items()}
    if how == "missing":
        del state["heads.1.bias"]
    elif how == "unexpected":
        state["tail.weight"] = X
    elif how == "shape":
        state["heads.1.bias"] = state["heads.1.bias"][:2]
    else:
        state["heads.1.bias"] = state["heads.1.bias"].astype(np.float64)
    before = {name: a.copy() for name, a in net.state_dict().items()}
    named = "tail.weight" if how == "unexpected" else "heads.1.bias"
    with pytest.raises(StateDictError, match=named):
        net.load_state_dict(state)
    for name, array in net.state_dict().items():
        assert np.array_equal(array, before[name])


def test_a_loose_load_takes_what_fits() -> None:
    net = Net()
    net.load_state_dict({"scale": np.full(1, 3, np.float32), "other": X}, strict=False)
    assert net.scale.data.tolist() == [3]
    with pytest.raises(StateDictError, match="scale: expected shape"):
        net.load_state_dict({"scale": X}, strict=False)


def test_errors_name_the_layer() -> None:
    net = Net()
    net.heads[1].weight = Parameter(np.zeros((5, 3), np.float32))
    with pytest.raises(ShapeError, match=r"^heads\.1 \(Dense\): @: expected") as caught:
        net(Tensor(X))
    assert caught.value.origin is net.heads[1]
    net = Net()
    act = net.body[0]
    assert isinstance(act, PReLU)
    act.weight = Parameter(np.zeros(5, np.float32))
    with pytest.raises(ShapeError, match=r"^body\.0 \(PReLU\): slope: expected shape"):
        net(Tensor(X))
    with pytest.raises(ShapeError, match=r"^Dense: @: expected"):
        Dense(3, 2)(Tensor(X))


def test_train_and_eval_reach_every_module() -> None:
    net = Net()
    assert all(m.training for m in net.modules())
    assert net.eval() is net
    assert not any(m.training for m in net.modules())
    net(Tensor(X))
    assert net.first.calls.data == 0
    net.train()(Tensor(X))
    assert net.first.calls.data == 1


def test_repr_shows_the_tree() -> None:
    text = repr(Sequential({"body": Sequential(PReLU(6)), "act": PReLU((2, 3, 4))}))
    assert text == (
        "Sequential(\n  (body): Sequential(\n    (0): PReLU(num_parameters=6)\n  )\n"
        "  (act): PReLU(num_parameters=(2, 3, 4))\n)"
    )


def test_sequential_iterates_counts_and_indexes() -> None:
    layers = PReLU(3), PReLU(4)
    net = Sequential(*layers)
    assert (list(net), len(net), net[1]) == ([*layers], 2, layers[1])


@pytest.mark.parametrize("name", ["", "a.b", "training", "forward", "modules"])
def test_sequential_refuses_names_that_would_clash(name: str) -> None:
    with pytest.raises(ValueError, match="cannot name a layer"):
        Sequential({name: PReLU()})


def test_mistakes_in_a_module_are_said_at_once() -> None:
    class Forgot(Module):
        def __init__(self) -> None:
            self.act = PReLU()

    with pytest.raises(RuntimeError, match=r"must call super\(\).__init__\(\) first"):
        Forgot()(Tensor(X))
    with pytest.raises(NotImplementedError, match=r"Module defines no forward\(\)"):
        Module()(Tensor(X))
    with pytest.raises(TypeError, match="expected modules, got int"):
        Sequential(PReLU(), 3)  # type: ignore[arg-type]
    assert not hasattr(Net(), "missing")


def test_forward_hooks_see_inputs_and_outputs_until_removed() -> None:
    layer, seen = PReLU(4), []
    remove = layer.register_forward_hook(lambda m, x, y: seen.append((m, x[0].shape, y.shape)))
    layer(Tensor(X))
    remove()
    layer(Tensor(X))
    assert seen == [(layer, (5, 4), (5, 4))]


def test_astype_converts_floats_and_keeps_counters() -> None:
    net = Net().astype(np.float64)
    assert {p.dtype for p in net.parameters()} == {np.dtype(np.float64)}
    assert net.first.calls.data.dtype == np.int64
    assert net(Tensor(X.astype(np.float64)))[0].dtype == np.float64


# --- trace ----------------------------------------------------------------------------


def test_trace_lists_ops_with_paths_shapes_and_macs() -> None:
    net = Net()
    graph = trace(net, (5, 4))
    assert [(step.path, step.op.name) for step in graph.steps] == [
        ("first", "matmul"),
        ("first", "add"),
        ("body.0", "prelu"),
        ("body.1.mid", "matmul"),
        ("body.1.mid", "add"),
        ("body.1.act", "prelu"),
        ("", "mul"),
        ("heads.0", "matmul"),
        ("heads.0", "add"),
        ("heads.1", "matmul"),
        ("heads.1", "add"),
    ]
    assert [s.macs for s in graph.steps if s.macs] == [5 * 24, 5 * 36, 5 * 12, 5 * 18]
    assert [graph.values[i].shape for i in graph.outputs] == [(5, 2), (5, 3)]
    assert [graph.values[i].kind for i in graph.inputs] == ["input"]
    first = [graph.values[i] for i in graph.steps[0].inputs if i is not None]
    assert [(v.kind, v.name) for v in first] == [("input", "input"), ("parameter", "first.weight")]
    assert first[1].parameter is net.first.weight
    assert graph.steps[0].module is net.first


def test_trace_leaves_modes_and_buffers_alone() -> None:
    net = Net()
    net.heads[0].eval()
    trace(net, (1, 4), training=True)
    assert [m.training for m in net.heads] == [False, True]
    assert net.first.calls.data == 0


def test_trace_takes_dicts_of_outputs_and_constants() -> None:
    class Exits(Module):
        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"early": x * 2.0, "late": x + np.ones(4, np.float32)}

    graph = trace(Exits(), (1, 4))
    assert len(graph.outputs) == 2
    assert sum(v.kind == "constant" for v in graph.values) == 2


# --- networks that are not chains train -------------------------------------------------


class Residual(Module):
    """y = F(x) + x, twice."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = [Sequential(Dense(6, 6, i), PReLU(6)) for i in range(2)]
        self.last = Dense(6, 1, 9)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.inside:
            x = block(x) + x
        y: Tensor = self.last(x)
        return y


class Branches(Module):
    """Two branches, concatenated, as in Inception."""

    def __init__(self) -> None:
        super().__init__()
        self.left = Sequential(Dense(6, 5, 1), PReLU(5))
        self.right = Sequential(Dense(6, 4, 2), PReLU(4))
        self.last = Dense(9, 1, 3)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.last(concat([self.left(x), self.right(x)]))
        return y


class TwoExits(Module):
    """An early exit beside the late one."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = Sequential(Dense(6, 8, 1), PReLU(8))
        self.early = Dense(8, 1, 2)
        self.late = Sequential(Dense(8, 8, 3), PReLU(8), Dense(8, 1, 4))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.trunk(x)
        return self.early(x), self.late(x)


@pytest.mark.parametrize("kind", [Residual, Branches, TwoExits])
def test_toy_networks_learn_eight_examples(kind: Any) -> None:
    rng = np.random.default_rng(0)
    x = np.asarray(rng.standard_normal((8, 6)), np.float32)
    target = np.asarray(rng.standard_normal((8, 1)), np.float32)
    net = kind()
    optimizer = Adam(net.parameters(), lr=0.02)
    losses = []
    for _ in range(600):
        optimizer.zero_grad()
        result = net(Tensor(x))
        outputs = result if isinstance(result, tuple) else (result,)
        loss = sum((((y - target) ** 2).mean() for y in outputs), start=Tensor(0.0))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > 0.3
    assert losses[-1] < 1e-3


def test_parameters_shared_by_two_layers_get_both_gradients() -> None:
    a, b = Dense(4, 4, 1), Dense(4, 4, 2)
    b.weight = a.weight
    net = Sequential(a, b)
    assert len(net.parameters()) == 3
    SGD(net.parameters(), 0.1)
    assert a.weight.data is b.weight.data
    net(Tensor(X)).sum().backward()
    grad = a.weight.grad
    assert grad is not None
    ones = np.ones((5, 4))
    want = (X @ a.weight.data).T @ ones + X.T @ (ones @ a.weight.data.T)
    np.testing.assert_allclose(grad, want, rtol=1e-4, atol=1e-4)
