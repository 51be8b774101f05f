"""A run that is killed, interrupted or damaged goes on to the same bits as one that was not."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from minidnn import checkpoint, cli
from minidnn.runlog import read_log
from minidnn.threads import num_threads, set_num_threads
from tests.processes import python
from tests.tiny_runs import assert_same_run, timeless_log, write_config, write_pictures


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Keep tiny runs quick on a busy machine; one test of its own varies the threads."""
    before = num_threads()
    set_num_threads(1)
    yield
    set_num_threads(before)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a configuration and the run `reference` that nothing disturbed."""
    folder = tmp_path_factory.mktemp("runs")
    config = write_config(folder)
    assert cli.main(["train", "--config", str(config), "--out", str(folder / "reference")]) == 0
    return folder


def _start(*argv: str | Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "minidnn", "train", "--threads", "1", *map(str, argv)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def _steps(run: Path) -> int:
    return max((r["step"] for r in read_log(run / "log.jsonl") if "step" in r), default=0)


def _signal_at(process: subprocess.Popen[str], run: Path, step: int, *signals: int) -> str:
    """Send signals once the log shows a step; return what the process printed."""
    deadline = time.monotonic() + 240
    while _steps(run) < step:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.002)
    for number in signals:
        process.send_signal(number)
        time.sleep(0.05)
    return process.communicate(timeout=60)[0]


def test_a_run_killed_in_mid_epoch_ends_with_the_same_bits(home: Path) -> None:
    run = home / "killed"
    process = _start(
        "--config", home / "config.toml", "--out", run, "--set", "checkpoint_steps=25"
    )  # 20 steps are an epoch, so step 25 is in the middle of the second
    _signal_at(process, run, 27, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert checkpoint.read(run / "last.safetensors").info["position"]["step"] == 25
    assert _steps(run) >= 27
    assert cli.main(["train", "--resume", str(run), "--set", "checkpoint_steps=0"]) == 0
    _assert_same_but_for_checkpoint_steps(run, home / "reference")


def _assert_same_but_for_checkpoint_steps(run: Path, reference: Path) -> None:
    log = timeless_log(run)
    log[0]["config"]["checkpoint_steps"] = 0
    assert log == timeless_log(reference)
    for name in ("last.safetensors", "best.safetensors"):
        got, want = checkpoint.read(run / name), checkpoint.read(reference / name)
        assert got.arrays.keys() == want.arrays.keys()
        for key, array in want.arrays.items():
            assert np.array_equal(got.arrays[key], array), f"{name}: {key}"


def test_kills_while_checkpoints_are_written_change_nothing(home: Path) -> None:
    run = home / "killed_often"
    shutil.rmtree(run, ignore_errors=True)
    process = _start("--config", home / "config.toml", "--out", run, "--set", "checkpoint_steps=1")
    for step in (9, 33):  # each step writes one, so a kill mostly falls into the writing
        _signal_at(process, run, step, signal.SIGKILL)
        process = _start("--resume", run)
    out = process.communicate(timeout=120)[0]
    assert process.returncode == 0, out
    _assert_same_but_for_checkpoint_steps(run, home / "reference")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_saves_and_names_the_command(number: int, home: Path) -> None:
    run = home / f"signal_{number}"
    process = _start("--config", home / "config.toml", "--out", run)
    out = _signal_at(process, run, 5, number)
    assert process.returncode == 130
    assert f"minidnn train --resume {run}" in out
    position = checkpoint.read(run / "last.safetensors").info["position"]
    assert position["step"] == _steps(run)
    assert cli.main(["train", "--resume", str(run)]) == 0
    assert_same_run(run, home / "reference")


def test_a_second_signal_stops_at_once_and_nothing_is_lost(home: Path) -> None:
    run = home / "signal_twice"
    process = _start("--config", home / "config.toml", "--out", run, "--set", "epochs=100000")
    out = _signal_at(process, run, 5, signal.SIGINT, signal.SIGINT)
    # A shell calls both 130: the second signal may come when Python is already on its way out.
    assert process.returncode in (130, -signal.SIGINT)
    assert "Traceback" not in out
    assert checkpoint.exists(run / "last.safetensors")


@pytest.mark.filterwarnings("default::minidnn.checkpoint.CheckpointWarning")
def test_a_damaged_checkpoint_gives_way_to_the_one_before(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = home / "damaged"
    shutil.copytree(home / "reference", run)
    last = run / "last.safetensors"
    last.write_bytes(last.read_bytes()[:-5])
    before = checkpoint.read(checkpoint.previous(last)).info["position"]
    assert before["epoch"] == 2
    assert cli.main(["train", "--resume", str(run)]) == 0
    assert "last.previous.safetensors instead" in capsys.readouterr().err
    assert_same_run(run, home / "reference")


def test_results_do_not_depend_on_the_number_of_threads(home: Path) -> None:
    config, runs = str(home / "config.toml"), str(home / "threads_")
    code = (
        "from minidnn.cli import main\n"
        "for n in '1238':\n"
        f"    argv = ['train', '--config', {config!r}, '--set', 'epochs=1', '--threads', n]\n"
        f"    assert main([*argv, '--out', {runs!r} + n]) == 0\n"
    )
    python(code, env={"NUMBA_NUM_THREADS": "8"})
    for n in (2, 3, 8):
        assert_same_run(home / f"threads_{n}", home / "threads_1")


def _refused(argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert cli.main(["train", *argv]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    return err


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["--lr", "0.5"], "lr is 0.02 in this run, 0.5 was given"),
        (["--set", "model.stem=8"], "model.stem is 4 in this run, 8 was given"),
        (["mlp"], "model is 'quicknet' in this run"),
        (["--recipe", "fast"], "recipe is 'standard' in this run"),
        (["--out", "elsewhere"], "stays in its folder"),
        (["--epochs", "2"], "only a finished run can be given more"),
    ],
)
def test_a_resume_with_other_settings_is_refused(
    argv: list[str], expected: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert expected in _refused(["--resume", str(home / "reference"), *argv], capsys)


def test_a_resume_on_other_pictures_is_refused(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path)
    run = tmp_path / "run"
    assert cli.main(["train", "--config", str(config), "--out", str(run), "--epochs", "1"]) == 0
    write_pictures(tmp_path / "pictures.npz", seed=1)
    capsys.readouterr()
    assert "not those the run was started on" in _refused(["--resume", str(run)], capsys)


def test_an_existing_run_is_not_overwritten(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["--config", str(home / "config.toml"), "--out", str(home / "reference")]
    assert "holds a run already" in _refused(argv, capsys)


def test_a_folder_without_a_checkpoint_is_started_afresh(home: Path, tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text("left over from a run that never began\n")
    argv = ["--config", str(home / "config.toml"), "--out", str(tmp_path)]
    assert cli.main(["train", *argv]) == 0
    assert_same_run(tmp_path, home / "reference")


def test_a_missing_run_is_answered_with_the_nearest(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "did you mean" in _refused(["--resume", str(home / "referense")], capsys)


def test_a_finished_run_can_be_made_longer(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = home / "longer"
    shutil.copytree(home / "reference", run)
    assert cli.main(["train", "--resume", str(run)]) == 0
    assert "best validation accuracy" in capsys.readouterr().out  # nothing left to do
    assert cli.main(["train", "--resume", str(run), "--epochs", "4"]) == 0
    out = capsys.readouterr().out
    assert "extended from 3 to 4 epochs: schedule 'cosine' now spans 80 steps" in out
    log = timeless_log(run)
    assert log[: len(timeless_log(home / "reference"))] == timeless_log(home / "reference")
    assert log[-1]["epoch"] == 4
    assert checkpoint.read(run / "last.safetensors").info["config"]["epochs"] == 4
