"""`minidnn quantize` and those who take its files, on a small run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minidnn as nn
from minidnn import checkpoint, cli
from minidnn.errors import CheckpointError
from minidnn.plan import file
from tests.oracles import int8_plan
from tests.test_plan import _images
from tests.test_quantize import Residual
from tests.tiny_runs import write_config


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    config, out = write_config(folder, epochs=2), folder / "out"
    command = ["train", "--config", str(config), "--out", str(out), "--progress", "none"]
    assert cli.main(command) == 0
    return out


@pytest.fixture(scope="module")
def model(run: Path) -> Path:
    path = run.parent / "model.minidnn"
    assert cli.main(["quantize", str(run), "--calibrate", "40", "-o", str(path)]) == 0
    return path


def _json(capsys: pytest.CaptureFixture[str], *command: str) -> Any:
    capsys.readouterr()
    assert cli.main([*command, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_all_ways_to_quantise_stand_beside_float32(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = _json(capsys, "quantize", str(run), "--calibrate", "40", "--draws", "2")
    names = [row["name"] for row in found["int8"]]
    assert names[:3] == ["mse", "percentile", "minmax"]
    assert "Vanhoucke" in names[3]
    plain = _json(capsys, "evaluate", str(run))
    assert found["float32"]["accuracy"] == plain["accuracy"]
    for row in found["int8"]:
        assert len(row["accuracies"]) == 2
        assert row["accuracy"] == pytest.approx(np.mean(row["accuracies"]))
        assert row["lost"]["share"] == pytest.approx(plain["accuracy"] - row["accuracy"])
        assert row["lost"]["low"] < row["lost"]["share"] < row["lost"]["high"]
        assert abs(row["lost"]["share"]) < 0.2
    assert sum(layer["share"] for layer in found["layers"]) == pytest.approx(1)


def test_a_table_says_what_was_lost_and_which_layers_cost_most(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["quantize", str(run), "--calibrate", "40", "--layers"]) == 0
    text = capsys.readouterr().out
    for part in ("float32", "8-bit, mse *", "points lost", "Vanhoucke", "of all noise", "s1_1"):
        assert part in text
    assert "layers that cost most" in text


def test_its_file_evaluates_to_the_accuracy_it_reported(
    run: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reported = _json(capsys, "quantize", str(run), "--calibrate", "40")["int8"][0]
    found = _json(capsys, "evaluate", str(model), "--against", str(run))
    assert found["accuracy"] == reported["accuracy"]
    assert found["against"]["lost"]["share"] == pytest.approx(-reported["lost"]["share"])
    assert cli.main(["evaluate", str(model), "--against", str(run)]) == 0
    assert "in pairs" in capsys.readouterr().out


def test_fine_tuning_is_one_more_row_and_what_is_written(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "tuned.minidnn"
    found = _json(
        capsys, "quantize", str(run), "--calibrate", "40", "--finetune", "1", "-o", str(path)
    )
    assert found["int8"][-1]["name"] == "fine-tuned"
    assert found["chosen"] == "fine-tuned"
    assert _json(capsys, "evaluate", str(path))["accuracy"] == found["int8"][-1]["accuracy"]


def test_its_steps_are_explained(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = _json(capsys, "compile", str(model))
    assert found["rows"][0]["what"] == "quantize"
    assert found["rows"][1]["what"].startswith("8 bits, windows 5x5, product, bias, PReLU")
    assert cli.main(["compile", str(model), "-o", str(model.with_name("again.minidnn"))]) == 2
    assert "compiled already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--calibrate", "0"], "--calibrate: expected 1 to"),
        (["--calibrate", "9999"], "--calibrate: expected 1 to"),
        (["--draws", "0"], "--draws: expected at least 1"),
        (["--finetune", "-1"], "--finetune: expected at least 0"),
        (["--method", "best"], "choice"),
        (["--calibrate", "9", "--keep", "head.linea"], "head.linear"),
        (["-o", "model.onnx"], "a name ending in .minidnn"),
        (["--data", "nothing.npz"], "nothing.npz"),
    ],
)
def test_wrong_options_are_one_line(
    run: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = cli.main(["quantize", str(run), *arguments])
    except SystemExit as stop:
        code = int(str(stop.code))
    assert code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.strip().count("\n") == 0


# --- files ----------------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "residual.minidnn"
    plan = nn.quantize(Residual(), _images(30, (7, 5, 3)), input_shape=(1, 7, 5, 3))
    file.save(path, plan, {"about": "a test"})
    return path


def test_a_file_holds_integers_and_gives_the_same_bits(saved: Path) -> None:
    arrays = checkpoint.read(saved, file.MARK).arrays
    assert {a.dtype for name, a in arrays.items() if "matrix" in name} == {np.dtype(np.int8)}
    plan, x = file.load(saved).plan, _images(4, (7, 5, 3))
    (want,) = int8_plan.run(plan.program, x)
    assert np.array_equal(plan(x), want)


def _changed(path: Path, change: Any) -> None:
    found = checkpoint.read(path, file.MARK)
    change(found.info, found.arrays)
    checkpoint.save(path, found.arrays, found.info, mark=file.MARK)


def _first(info: dict[str, Any], kind: str) -> int:
    return [step["kind"] for step in info["steps"]].index(kind)


def _zeros(info: dict[str, Any], arrays: dict[str, Any]) -> None:
    info["steps"][1]["zeros"][2] += 1


def _kind(info: dict[str, Any], arrays: dict[str, Any]) -> None:
    info["steps"][1]["kind"] = "convolve"


def _type(info: dict[str, Any], arrays: dict[str, Any]) -> None:
    arrays["1.matrix"] = arrays["1.matrix"].astype(np.int32)


def _scale(info: dict[str, Any], arrays: dict[str, Any]) -> None:
    arrays["1.scale"] = arrays["1.scale"] * np.float32(1e6)


def _nan(info: dict[str, Any], arrays: dict[str, Any]) -> None:
    arrays["0.scale"] = arrays["0.scale"] * np.float32("nan")


def _bias(info: dict[str, Any], arrays: dict[str, Any]) -> None:
    arrays["1.bias"][:] = 2**31 - 5


def _codes(info: dict[str, Any], arrays: dict[str, Any]) -> None:
    info["codes"] = {}


def _added(info: dict[str, Any], arrays: dict[str, Any]) -> None:
    i = _first(info, "int8_add")
    arrays[f"{i}.scale"] = arrays[f"{i}.scale"][:1]


@pytest.mark.parametrize("change", [_zeros, _kind, _type, _scale, _nan, _bias, _codes, _added])
def test_files_that_do_not_fit_together_are_refused(saved: Path, change: Any) -> None:
    _changed(saved, change)
    with pytest.raises(CheckpointError, match=r"residual\.minidnn: no plan"):
        file.load(saved)
