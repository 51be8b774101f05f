"""Compiled models as files: saved, read again, refused; `compile`, and those who take its files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minidnn as nn
from minidnn import checkpoint, cli
from minidnn.errors import CheckpointError, GraphError
from minidnn.plan import file
from tests.test_plan import Branches, WithOwnOp
from tests.tiny_runs import write_config, write_pictures


def _plan() -> Any:
    return nn.compile(Branches().eval(), (1, 6, 7, 3))


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "branches.minidnn"
    file.save(path, _plan(), {"about": "a test", "share": 0.1})
    return path


def test_a_plan_read_from_its_file_gives_the_same_bits(tmp_path: Path) -> None:
    plan, path = _plan(), tmp_path / "plan.minidnn"
    file.save(path, plan, {"about": "a test", "share": 0.1})
    again = file.load(path)
    assert again.info == {"about": "a test", "share": 0.1}
    for n in (1, 19):
        x = np.random.default_rng(0).standard_normal((n, 6, 7, 3)).astype(np.float32)
        for got, want in zip(again.plan(x), plan(x), strict=True):
            assert np.array_equal(got, want)


def test_sums_of_a_folded_matrix_are_those_of_the_file(tmp_path: Path) -> None:
    rng, path = np.random.default_rng(0), tmp_path / "plan.minidnn"
    layers = nn.SeparableConv2d(128, 192, 3, rng=rng), nn.BatchNorm2d(192)
    model = nn.Sequential(*layers).eval()
    for name, buffer in model.named_buffers():
        if name.endswith("running_var"):
            buffer.data[...] = rng.uniform(0.5, 2, buffer.data.shape)
    plan = nn.compile(model, (1, 4, 4, 128))
    file.save(path, plan, {})
    x = rng.standard_normal((3, 4, 4, 128)).astype(np.float32)
    assert np.array_equal(file.load(path).plan(x), plan(x))


def test_a_file_replaces_the_one_before_and_leaves_nothing_else(saved: Path) -> None:
    file.save(saved, _plan(), {"about": "another"})
    assert file.load(saved).info == {"about": "another"}
    assert list(saved.parent.iterdir()) == [saved]


def test_ops_without_a_compiled_step_are_not_saved(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="halved"):
        plan = nn.compile(WithOwnOp(), (1, 4, 3))
    with pytest.raises(GraphError, match=r"'halved' .* a file holds no code"):
        file.save(tmp_path / "x.minidnn", plan, {})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("keep", [0, 7, 100, -1])
def test_truncated_files_are_refused(saved: Path, keep: int) -> None:
    saved.write_bytes(saved.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=r"branches\.minidnn"):
        file.load(saved)


def test_a_flipped_bit_is_found(saved: Path) -> None:
    data = bytearray(saved.read_bytes())
    data[-20] ^= 4
    saved.write_bytes(data)
    with pytest.raises(CheckpointError, match="checksum"):
        file.load(saved)


def test_a_file_from_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "new.minidnn"
    checkpoint.save(path, {}, {}, mark="minidnn plan 3")
    with pytest.raises(CheckpointError, match="expected a file marked 'minidnn plan 2'"):
        file.load(path)


def _set(name: str, value: Any, step: int = 0) -> Callable[[dict[str, Any]], None]:
    def change(info: dict[str, Any]) -> None:
        info["steps"][step][name] = value

    return change


CHANGES: dict[str, Callable[[dict[str, Any]], None]] = {
    "a kind that there is not": _set("kind", "run"),
    "a wider input": _set("shape", [6, 700, 3]),
    "more outputs": _set("out_shape", [6, 7, 9]),
    "a larger kernel": _set("kernel", [5, 5]),
    "a stride of 0": _set("stride", [0, 1]),
    "a channel beyond the last": _set("to", 3),
    "an input from the future": _set("inputs", [5]),
    "a value that there is not": _set("output", 99),
    "itself as input": _set("inputs", [1], step=1),
    "a pool that the value has no room for": _set("pool", 2),
    "no steps": lambda info: info.update(steps=[]),
    "no sizes": lambda info: info.pop("sizes"),
    "another input": lambda info: info.update(input_shape=[6, 7, 4]),
    "another output": lambda info: info.update(outputs=[[0, [9]]]),
    "text": lambda info: info.update(steps="none"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_steps_that_do_not_fit_together_are_refused(saved: Path, name: str) -> None:
    found = checkpoint.read(saved, file.MARK)
    CHANGES[name](found.info)
    checkpoint.save(saved, found.arrays, found.info, mark=file.MARK)
    with pytest.raises(CheckpointError, match="no plan"):
        file.load(saved)


def test_weights_of_another_shape_are_refused(saved: Path) -> None:
    found = checkpoint.read(saved, file.MARK)
    for name in list(found.arrays):
        changed = {**found.arrays, name: found.arrays[name].ravel()[:-1]}
        checkpoint.save(saved, changed, found.info, mark=file.MARK)
        with pytest.raises(CheckpointError, match="no plan"):
            file.load(saved)


# --- commands -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    config = write_config(folder, epochs=1)
    out = folder / "out"
    assert (
        cli.main(["train", "--config", str(config), "--out", str(out), "--progress", "none"]) == 0
    )
    return out


@pytest.fixture(scope="module")
def model(run: Path) -> Path:
    path = run.parent / "model.minidnn"
    assert cli.main(["compile", str(run), "-o", str(path)]) == 0
    return path


def _json(capsys: pytest.CaptureFixture[str], *command: str) -> Any:
    capsys.readouterr()
    assert cli.main([*command, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_compiled_model_evaluates_as_its_run(
    run: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain, compiled = (_json(capsys, "evaluate", str(path)) for path in (run, model))
    assert compiled["confusion"] == plain["confusion"]
    assert compiled["loss"] == pytest.approx(plain["loss"], rel=1e-5)


def test_a_compiled_model_predicts_as_its_run(
    run: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = pytest.importorskip("PIL.Image")
    picture = tmp_path / "picture.png"
    pixels = np.load(write_pictures(tmp_path / "p.npz"))["images"][5]
    image.fromarray(pixels).save(picture)
    (plain,), (compiled,) = (
        _json(capsys, "predict", str(path), str(picture))["predictions"] for path in (run, model)
    )
    for name, probability in plain["probabilities"].items():
        assert compiled["probabilities"][name] == pytest.approx(probability, abs=1e-5)


def test_a_run_and_its_compiled_model_serve(
    run: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (run, model):
        found = _json(capsys, "fps", str(path), "--seconds", "0.1")
        assert "quicknet" in found["weights"]
        assert str(path) in found["weights"]
        (case,) = found["cases"]
        assert case["precision"] == "float32"
        assert case["back_to_back"]["calls"] >= 1


def test_explain_lists_every_step_with_its_time(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = _json(capsys, "compile", str(run), "--batch", "3")
    layers = [layer for row in found["rows"] for layer in row["layers"]]
    assert "features.stem.conv" in layers
    assert "head.linear" in layers
    assert all(row["seconds"] > 0 for row in found["rows"])
    assert found["rows"][0]["macs"] == 3 * 12 * 12 * 75 * 4  # the stem: 16x16 -> 12x12, 5x5x3
    assert found["memory_bytes"] > 0
    assert "depthwise 3x3, product, bias, PReLU, max 2x2" in [row["what"] for row in found["rows"]]
    assert cli.main(["compile", str(run), "--explain"]) == 0
    assert "ms a call" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected -o FILE"),
        (["-o", "no-folder/x.minidnn"], "no folder"),
        (["-o", "model.onnx"], "a name ending in .minidnn"),
        (["--explain", "--batch", "0"], "at least 1"),
        (["--threads", "0", "--explain"], "--threads"),
    ],
)
def test_wrong_options_are_one_line(
    run: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["compile", str(run), *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_file_that_is_no_plan_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.minidnn"
    path.write_bytes(b"nothing")
    assert cli.main(["evaluate", str(path)]) == 2
    assert "not a safetensors file" in capsys.readouterr().err
