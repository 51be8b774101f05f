"""Checkpoints are whole or refused, and an older good one is always there."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from minidnn import checkpoint
from minidnn.errors import CheckpointError
from minidnn.runlog import RunLog, read_log

INFO = {"step": 7, "loss": 0.1 + 0.2, "nested": {"classes": ["a", "ü"]}}


def _arrays() -> dict[str, Any]:
    rng = np.random.default_rng(3)
    return {
        "model.weight": rng.standard_normal((3, 5)).astype(np.float32),
        "model.count": np.asarray(3, np.int64),
        "optimizer.momentum": rng.standard_normal((4, 6)).astype(np.float32).T,
        "model.none": np.zeros((0, 4), np.float32),
    }


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "last.safetensors"
    checkpoint.save(path, _arrays(), INFO)
    return path


def test_everything_comes_back_bit_for_bit(saved: Path) -> None:
    got = checkpoint.read(saved)
    assert got.info == INFO
    assert got.arrays.keys() == _arrays().keys()
    for name, want in _arrays().items():
        assert np.array_equal(got.arrays[name], want)
        assert got.arrays[name].dtype == want.dtype
    assert set(got.part("model")) == {"weight", "count", "none"}


def test_any_safetensors_reader_can_open_it(saved: Path) -> None:
    assert set(safetensors.numpy.load_file(saved)) == set(_arrays())


def test_a_file_cut_anywhere_is_refused(saved: Path) -> None:
    whole = saved.read_bytes()
    for size in [*range(0, len(whole), 7), len(whole) - 1]:
        saved.write_bytes(whole[:size])
        with pytest.raises(CheckpointError, match=r"last\.safetensors"):
            checkpoint.read(saved)


@settings(max_examples=200, deadline=None)
@given(where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_single_flipped_bit_is_refused(
    where: float, bit: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("flip") / "last.safetensors"
    checkpoint.save(path, _arrays(), INFO)
    data = bytearray(path.read_bytes())
    data[int(where * len(data))] ^= 1 << bit
    path.write_bytes(data)
    try:
        got = checkpoint.read(path)
    except CheckpointError:
        return
    # A bit of white space in the header may turn into other white space.
    assert got.info == INFO
    for name, want in _arrays().items():
        assert np.array_equal(got.arrays[name], want)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK\x03\x04 a zip file",
        b"\xff" * 64,
        b"\x02\0\0\0\0\0\0\0{}",
        b"\x02\0\0\0\0\0\0\0[]",
        safetensors.numpy.save({"w": np.zeros(3, np.float32)}),
        safetensors.numpy.save({"w": np.zeros(3, np.float32)}, {"format": "pt"}),
        safetensors.numpy.save({"w": np.zeros(3)}, {"format": checkpoint.FORMAT}),
    ],
)
def test_a_foreign_file_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"x\.safetensors"):
        checkpoint.read(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="No such file"):
        checkpoint.read_latest(tmp_path / "last.safetensors")


def test_a_damaged_file_gives_way_to_the_one_before_it(saved: Path) -> None:
    checkpoint.save(saved, _arrays(), {"step": 8})
    assert checkpoint.read_latest(saved).info == {"step": 8}
    saved.write_bytes(saved.read_bytes()[:100])
    with pytest.warns(checkpoint.CheckpointWarning, match=r"using .*last\.previous\.safetensors"):
        assert checkpoint.read_latest(saved).info == INFO
    saved.unlink()  # as after a kill between the two renames
    with pytest.warns(checkpoint.CheckpointWarning):
        assert checkpoint.read_latest(saved).info == INFO


def test_a_full_disk_leaves_the_earlier_file(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointError, match=r"No space left.*before it is intact"):
        checkpoint.save(saved, _arrays(), {"step": 8})
    assert checkpoint.read(saved).info == INFO
    assert [p.name for p in saved.parent.iterdir()] == ["last.safetensors"]


def test_a_kill_while_writing_leaves_a_good_file(tmp_path: Path) -> None:
    path = tmp_path / "last.safetensors"
    code = (
        "import sys, numpy as np; from pathlib import Path; from minidnn import checkpoint\n"
        "a = np.random.default_rng(0).standard_normal(2_000_000).astype(np.float32)\n"
        "for step in range(10_000):\n"
        "    checkpoint.save(Path(sys.argv[1]), {'a': a}, {'step': step})\n"
        "    print(step, flush=True)\n"
    )
    for wait in (0.003, 0.011, 0.02):
        with subprocess.Popen(
            [sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True
        ) as child:
            assert child.stdout is not None
            done = [int(child.stdout.readline()) for _ in range(3)][-1]
            time.sleep(wait)
            child.send_signal(signal.SIGKILL)
        try:
            got = checkpoint.read(path)
        except CheckpointError:
            got = checkpoint.read(checkpoint.previous(path))
        assert got.info["step"] >= done


def test_log_is_cut_back_to_a_position(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    log = RunLog(path)
    log.append({"step": 1, "loss": 0.1})
    position = log.position
    log.append({"step": 2, "loss": float("nan")})
    log.close()
    assert [r["step"] for r in read_log(path)] == [1, 2]
    log = RunLog(path, position)
    log.append({"step": 3})
    log.close()
    assert read_log(path) == [{"step": 1, "loss": 0.1}, {"step": 3}]
    with pytest.raises(CheckpointError, match="expected at least 1000 bytes"):
        RunLog(path, 1000)


def test_log_without_a_position_starts_afresh(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"old": 1}\n')
    RunLog(path).close()
    assert path.read_bytes() == b""


def test_a_line_cut_short_by_a_kill_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text(json.dumps({"step": 1}) + '\n{"st')
    assert read_log(path) == [{"step": 1}]
    assert read_log(tmp_path / "none.jsonl") == []


def test_a_run_is_written_by_one_process_at_a_time(tmp_path: Path) -> None:
    first = RunLog(tmp_path / "log.jsonl")
    with pytest.raises(CheckpointError, match="another process is training"):
        RunLog(tmp_path / "log.jsonl")
    first.close()
    RunLog(tmp_path / "log.jsonl").close()
