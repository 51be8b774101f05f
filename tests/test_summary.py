"""`minidnn summary`: exact counts per layer and in total, as a table and as JSON."""

from __future__ import annotations

import json

import numpy as np
import pytest

from minidnn.cli import main
from minidnn.layers.activation import PReLU
from minidnn.layers.linear import Linear
from minidnn.measure.summary import summarize
from minidnn.models import build
from minidnn.module import Module
from minidnn.tensor import Tensor


def test_quicknet_counts_are_exact() -> None:
    summary = summarize(build("quicknet"), (32, 32, 3))
    assert (summary.parameters, summary.parameter_bytes) == (3_557_322, 14_229_288)
    assert (summary.macs, summary.statistics) == (127_863_040, 11_648)
    layers = {layer.path: layer for layer in summary.layers}
    assert sum(layer.parameters for layer in summary.layers) == summary.parameters
    stem = layers["features.stem.conv"]
    assert (stem.kind, stem.output_shape) == ("Conv2d", (28, 28, 64))
    assert (stem.parameters, stem.macs, stem.activation_bytes) == (4800, 3_763_200, 28 * 28 * 256)
    assert stem.moved_bytes == 4 * (32 * 32 * 3 + 4800 + 28 * 28 * 64)
    assert stem.intensity == pytest.approx(2 * 3_763_200 / stem.moved_bytes)
    depthwise = layers["features.s3_1.conv.depthwise"]
    assert (depthwise.parameters, depthwise.macs) == (2304, 112_896)
    assert depthwise.intensity < 5 < layers["features.s1_2.conv.pointwise"].intensity
    norm = layers["features.s4_3.norm"]
    assert (norm.kind, norm.parameters, norm.macs, norm.intensity) == ("BatchNorm2d", 2048, 0, 0)
    assert layers["head.linear"].parameters == 10_250


class _Shared(Module):
    """A layer called twice, an op of the model's own, a frozen parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = Linear(3, 3)
        self.act = PReLU(3)
        self.act.weight.requires_grad = False

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.act(self.dense(self.dense(x) + x))
        return y


def test_shared_and_frozen_parameters_count_once_and_not_at_all() -> None:
    summary = summarize(_Shared(), (3,))
    assert [(layer.path, layer.kind, layer.parameters) for layer in summary.layers] == [
        ("dense", "Linear", 12),
        ("", "add", 0),
        ("dense", "Linear", 0),
        ("act", "PReLU", 0),
    ]
    assert (summary.parameters, summary.macs) == (12, 18)


def test_json_holds_exact_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["summary", "quicknet", "--json"]) == 0
    numbers = json.loads(capsys.readouterr().out)
    assert numbers["parameters"] == 3_557_322
    assert numbers["parameter_bytes"] == 14_229_288
    assert numbers["macs"] == 127_863_040
    assert numbers["layers"][0]["output_shape"] == [28, 28, 64]


def test_table_shows_layers_and_totals(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    assert main(["summary", "mlp", "--input-shape", "8x8x1", "--classes", "4"]) == 0
    text = capsys.readouterr().out
    assert "Linear" in text
    assert f"{64 * 64 + 64 + 64 * 4 + 4:,}" in text
    assert "MB of 10^6 bytes" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["quicknets"], "did you mean 'quicknet'"),
        (["quicknet", "--input-shape", "32,0,3"], "expected sizes such as 32,32,3"),
        (["quicknet", "--input-shape", "8,8,3"], "leaves no pixel"),
        (["quicknet", "--classes", "0"], "num_classes"),
        (["quicknet", "--jsn"], "--json"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["summary", *arguments]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_a_summary_changes_nothing() -> None:
    model = build("mlp")
    before = {name: a.copy() for name, a in model.state_dict().items()}
    summarize(model, (32, 32, 3))
    assert all(np.array_equal(a, before[name]) for name, a in model.state_dict().items())
    assert model.training
