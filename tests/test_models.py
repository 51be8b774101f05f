"""The networks: exact counts, shapes at every stage, arguments, names, and that they run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from minidnn import init, trace
from minidnn.errors import ConfigError, ShapeError
from minidnn.layers.activation import LeakyReLU, PReLU, ReLU
from minidnn.layers.dropout import Dropout
from minidnn.layers.norm import BatchNorm2d
from minidnn.models import MODELS, build
from minidnn.models.quicknet import QuickNet
from minidnn.module import Module
from minidnn.tensor import Tensor, no_grad


def _count(model: Module) -> int:
    return sum(p.size for p in model.parameters())


@pytest.mark.parametrize(
    ("name", "arguments", "count"),
    [
        ("quicknet", {}, 3_557_322),
        ("quicknet", {"num_classes": 100}, 3_557_322 + 90 * 1025),
        ("quicknet", {"slopes": "layer", "conv_bias": True}, 3_557_335),
        ("quicknet", {"stem": 32}, 3_550_442),
        ("quicknet", {"stem": 96}, 3_564_202),
        ("quicknet", {"conv_bias": True}, 3_563_146),
        ("quicknet", {"slopes": "element"}, 4_156_170),
        ("quicknet", {"activation": "relu"}, 3_557_322 - 5_824),
        ("quicknet_b", {}, 3_556_234),
        ("quicknet_elem", {}, 3_558_986),
        ("plain_cnn", {}, 31_366_922),
        ("mlp", {}, 3072 * 64 + 64 + 64 * 10 + 10),
        ("mlp", {"hidden": ()}, 30_730),
    ],
)
def test_parameter_counts_are_exact(name: str, arguments: dict[str, Any], count: int) -> None:
    assert _count(build(name, **arguments)) == count


def test_quicknet_has_its_published_size_and_macs() -> None:
    model = build("quicknet")
    graph = trace(model, (1, 32, 32, 3))
    assert sum(step.macs for step in graph.steps) == 127_863_040
    assert sum(step.macs for step in graph.steps if step.path == "features.stem.conv") == 3_763_200
    statistics = [b.data.size for n, b in model.named_buffers() if "running" in n]
    assert sum(statistics) == 11_648
    shapes = {step.path: graph.values[step.output].shape for step in graph.steps}
    assert [shapes[f"features.{part}"] for part in ("stem.act", "pool1", "pool2", "pool3")] == [
        (1, 28, 28, 64),
        (1, 14, 14, 128),
        (1, 7, 7, 256),
        (1, 3, 3, 512),
    ]
    assert shapes["features.s4_3.act"] == (1, 3, 3, 1024)


def test_decay_spares_all_but_kernels_and_matrices() -> None:
    decays = {n for n, p in build("quicknet").named_parameters() if p.decay}
    assert len(decays) == 14  # stem, 12 pointwise, linear
    assert all(
        n.endswith(("stem.conv.weight", "pointwise.weight", "linear.weight")) for n in decays
    )


@pytest.mark.parametrize("name", MODELS)
def test_every_model_gives_finite_logits_and_gradients(name: str) -> None:
    small: dict[str, Any] = {} if name == "mlp" else {"stem": 4, "stages": (8, 16), "blocks": 1}
    model = build(name, num_classes=7, input_shape=(12, 16, 3), **small)
    x = np.asarray(np.random.default_rng(0).standard_normal((4, 12, 16, 3)), np.float32)
    y = model(Tensor(x))
    assert y.shape == (4, 7)
    (y * y).sum().backward()
    for path, p in model.named_parameters():
        assert p.grad is not None, path
        assert np.isfinite(p.grad).all(), path
        assert p.grad.any(), path


def test_arguments_reach_the_layers() -> None:
    model = QuickNet(
        stem=8,
        stages=(8, 16),
        blocks=2,
        activation="leaky",
        init_slope=0.1,
        dropout=0.3,
        dropout_after_stage=0.2,
        bn_eps=1e-3,
        bn_momentum=0.01,
    )
    layers = model.modules()
    assert [m.p for m in layers if isinstance(m, Dropout)] == [0.2, 0.2, 0.3]
    assert {(m.eps, m.momentum) for m in layers if isinstance(m, BatchNorm2d)} == {(1e-3, 0.01)}
    assert sum(isinstance(m, LeakyReLU) for m in layers) == 5
    relu = QuickNet(stem=8, stages=(8,), blocks=1, activation="relu")
    assert sum(isinstance(m, ReLU) for m in relu.modules()) == 2
    zero = QuickNet(stem=8, stages=(8,), blocks=1, init_slope=0.0)
    assert not any(m.weight.data.any() for m in zero.modules() if isinstance(m, PReLU))


def test_weights_come_from_the_generator_alone() -> None:
    small: dict[str, Any] = {"stem": 4, "stages": (8,), "blocks": 1}

    def state(seed: int, **arguments: Any) -> dict[str, Any]:
        rng = np.random.default_rng(seed)
        return build("quicknet", rng=rng, **small, **arguments).state_dict()

    first, again, other = state(1), state(1), state(2)
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not np.array_equal(first["head.linear.weight"], other["head.linear.weight"])
    glorot = state(1, weights="glorot")
    limit = np.sqrt(6 / (8 + 10))
    assert np.abs(glorot["head.linear.weight"]).max() <= limit
    assert np.abs(glorot["head.linear.weight"]).max() > 0.8 * limit
    assert np.abs(glorot["features.s1_1.conv.depthwise.weight"]).max() <= np.sqrt(6 / (9 * 5))
    init.manual_seed(5)
    one = build("mlp").state_dict()
    init.manual_seed(5)
    two = build("mlp").state_dict()
    assert all(np.array_equal(one[name], two[name]) for name in one)


def test_activations_keep_their_scale_through_the_depth() -> None:
    model = build("quicknet", stem=16, stages=(32, 64), rng=np.random.default_rng(0))
    x = Tensor(np.asarray(np.random.default_rng(1).standard_normal((8, 32, 32, 3)), np.float32))
    with no_grad():
        features = model.features(x)  # type: ignore[attr-defined]
    assert 0.3 < features.data.std() < 3


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: build("quicknot"), "did you mean 'quicknet'"),
        (lambda: build("quicknet", stemm=3), "did you mean 'stem'"),
        (lambda: build("quicknet_b", stages_=3), "did you mean 'stages'"),
        (lambda: build("mlp", stem=3), r"unknown argument of mlp: 'stem' \(known: hidden\)"),
        (lambda: build("mlp", hidden=64), "hidden: expected a list of whole numbers, got 64"),
        (lambda: build("mlp", hidden=[64, "a"]), "hidden: expected a list of whole numbers"),
        (lambda: build("quicknet", stem="abc"), "stem: expected a whole number, got 'abc'"),
        (lambda: build("quicknet", blocks=True), "blocks: expected a whole number, got True"),
        (lambda: build("quicknet_b", stages=3), "quicknet_b: stages: expected a list of whole"),
        (lambda: build("quicknet", dropout="x"), "dropout: expected a number, got 'x'"),
        (lambda: build("quicknet", conv_bias=1), "conv_bias: expected true or false, got 1"),
        (lambda: build("quicknet", activation=3), "activation: expected text, got 3"),
        (lambda: build("quicknet", activation="prelux"), "did you mean 'prelu'"),
        (lambda: build("quicknet", slopes="chanel"), "did you mean 'channel'"),
        (lambda: build("quicknet", weights="glorott"), "did you mean 'glorot'"),
        (lambda: build("quicknet", num_classes=0), "num_classes"),
        (lambda: build("quicknet", stages=()), "stages"),
        (lambda: build("quicknet", stages=(8, 0)), r"stages\[1\]"),
        (lambda: build("quicknet", blocks=0), "blocks"),
        (lambda: build("quicknet", input_shape=(8, 8, 3)), "leaves no pixel"),
        (lambda: build("quicknet", input_shape=(3, 3, 3)), "leaves no pixel"),
        (lambda: build("quicknet", input_shape=(32, 32)), r"expected \(H, W, C\)"),
    ],
)
def test_bad_arguments_are_named_errors(call: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        call()


def test_a_wrong_number_of_channels_names_the_stem() -> None:
    model = build("quicknet", stem=4, stages=(8,), blocks=1)
    with pytest.raises(ShapeError, match=r"^features\.stem\.conv \(Conv2d\): "):
        model(Tensor(np.zeros((1, 32, 32, 1), np.float32)))
