"""The configuration: precedence, types, nearest names, and the way back from a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from minidnn.config import SETTINGS, Config, differences, parse_assignment, read_toml, resolve
from minidnn.errors import ConfigError
from minidnn.recipes import RECIPES


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_is_a_valid_configuration(recipe: str) -> None:
    config = resolve({"recipe": recipe})
    for key, value in RECIPES[recipe].items():
        assert config.to_dict()[key] == value


def test_shapes_is_quick_and_other_data_fast_unless_said() -> None:
    assert resolve({}).recipe == "quick"
    assert resolve({"data": "cifar10"}).recipe == "fast"
    assert resolve({"data": "cifar10", "recipe": "paper"}).protocol == "paper"


def test_a_given_value_overrides_the_recipe() -> None:
    assert resolve({"recipe": "standard", "lr": 0.3}).lr == 0.3
    assert resolve({"recipe": "standard", "shift": 0.1}).pad == 0


def test_the_paper_recipe_stands_on_the_paper() -> None:
    config = resolve({"recipe": "paper", "data": "cifar10"})
    assert (config.val, config.epochs, config.arguments["dropout"]) == (6000, 200, 0.5)
    assert (config.lr, config.momentum, config.decay) == (0.01, 0.9, 1e-6)
    assert config.arguments["weights"] == "glorot"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"epoch": 3}, "did you mean 'epochs'"),
        ({"recipe": "standrad"}, "did you mean 'standard'"),
        ({"schedule": "cosin"}, "did you mean 'cosine'"),
        ({"epochs": 2.5}, "epochs: expected a whole number"),
        ({"epochs": True}, "epochs: expected a whole number"),
        ({"epochs": 0}, "epochs: expected at least 1"),
        ({"lr": "fast"}, "lr: expected a number"),
        ({"lr": -1.0}, "lr: expected at least 0"),
        ({"lr": float("nan")}, "lr: expected at least 0"),
        ({"seed": 2**63}, "seed: expected at least 0 and at most 9223372036854775807"),
        ({"label_smoothing": 1.5}, "label_smoothing: expected at least 0 and at most 1"),
        ({"warmup": 3}, "warmup: expected at least 0 and at most 1"),
        ({"ema": 1.0}, "ema: expected at least 0 and less than 1"),
        ({"momentum": 1.0}, "momentum: expected at least 0 and less than 1"),
        ({"shift": 1.0}, "shift: expected at least 0 and less than 1"),
        ({"lr": float("inf")}, "lr: expected at least 0"),
        ({"nesterov": 1}, "nesterov: expected true or false"),
        ({"data": 3}, "data: expected text"),
        ({"model.a b": 3}, "expected a name"),
        ({"model.stem": {"x": 1}}, "got a table"),
        ({"model.num_classes": 3}, "model.num_classes: follows from data"),
    ],
)
def test_wrong_settings_are_named(values: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        resolve(values)


def test_a_whole_number_will_do_for_a_number() -> None:
    lr = resolve({"lr": 1}).lr
    assert lr == 1.0
    assert isinstance(lr, float)


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("lr=0.5", "lr", 0.5),
        ("lr = 1e-3", "lr", 1e-3),
        ("epochs=3", "epochs", 3),
        ("nesterov=false", "nesterov", False),
        ("data=cifar10", "data", "cifar10"),
        ("data_dir=C:\\new", "data_dir", "C:\\new"),
        ('data="x"', "data", "x"),
        ("model.stem=8", "model.stem", 8),
        ("model.stages=[8, 16]", "model.stages", [8, 16]),
        ("model.activation=relu", "model.activation", "relu"),
    ],
)
def test_assignments_are_read(text: str, key: str, value: Any) -> None:
    assert parse_assignment(text) == (key, value)


@pytest.mark.parametrize("text", ["lr", "=3", ""])
def test_an_assignment_needs_key_and_value(text: str) -> None:
    with pytest.raises(ConfigError, match="expected key=value"):
        parse_assignment(text)


def test_configuration_comes_back_from_toml_and_dict(tmp_path: Path) -> None:
    given = {"recipe": "paper", "model.stages": [8, 16], "data_dir": 'a "b" \\ ü', "lr": 1e-30}
    config = resolve(given)
    path = tmp_path / "config.toml"
    path.write_text(config.to_toml(), encoding="utf-8")
    assert resolve(read_toml(path)) == config
    assert Config.from_dict(config.to_dict()) == config


def test_a_model_can_be_given_by_name_alone(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text('model = "mlp"\nlr = 1\n')
    assert resolve(read_toml(path)).model == "mlp"


@pytest.mark.parametrize("content", [None, b"lr = = 3", b"\xff"])
def test_an_unreadable_file_is_named(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"x\.toml"):
        read_toml(path)


def test_an_unknown_table_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text("[optimiser]\nlr = 3\n")
    with pytest.raises(ConfigError, match="did you mean 'optimizer'"):
        resolve(read_toml(path))


def test_a_resume_may_change_only_what_changes_no_result() -> None:
    run = resolve({"model.stem": 8})
    assert differences(run, {"data_dir": "/x", "checkpoint_steps": 5, "lr": run.lr}) == {}
    assert differences(run, {"lr": 0.5, "model.stem": 9}) == {
        "lr": (run.lr, 0.5),
        "model.stem": (8, 9),
    }
    with pytest.raises(ConfigError, match="did you mean 'epochs'"):
        differences(run, {"epoch": 3})


def test_every_setting_says_what_it_is() -> None:
    assert all(f.metadata["help"] for f in SETTINGS.values())
