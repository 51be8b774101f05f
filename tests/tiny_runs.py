"""Runs small enough for tests: a reduced QuickNet on a few coloured pictures from a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from minidnn import checkpoint
from minidnn.runlog import TIMES, read_log

CLASSES = ["red", "green", "blue"]

# 3 epochs of 20 steps; everything with a memory is on: batch norm, dropout, momentum, EMA.
SETTINGS = """
data = "{data}"
recipe = "standard"
epochs = 3
batch_size = 6
val = 30
lr = 0.02
warmup = 0.1
ema = 0.9
label_smoothing = 0.1
flip = "alternating"
pad = 2
pad_mode = "reflect"
cutout = 3
log_steps = 1
[model]
name = "quicknet"
stem = 4
stages = [4, 8]
blocks = 1
dropout = 0.5
"""


def write_pictures(path: Path, n: int = 190, side: int = 16, seed: int = 0) -> Path:
    """Write an .npz file of noisy pictures, each tinted in the colour of its class."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % len(CLASSES)
    images = rng.integers(0, 160, (n, side, side, 3))
    images[np.arange(n), :, :, labels] += 60
    np.savez(path, images=images.astype(np.uint8), labels=labels, classes=np.asarray(CLASSES))
    return path


def write_config(folder: Path, **changes: Any) -> Path:
    """Write pictures and a configuration that names them; return the configuration's path."""
    pictures = write_pictures(folder / "pictures.npz")
    text = SETTINGS.format(data=pictures.as_posix())
    for key, value in changes.items():
        lines = [line for line in text.splitlines() if not line.startswith(f"{key} =")]
        text = "\n".join([f"{key} = {json.dumps(value)}", *lines])
    path = folder / "config.toml"
    path.write_text(text, encoding="utf-8")
    return path


def timeless_log(run: Path) -> list[dict[str, Any]]:
    """Return a run's log without times and speeds."""
    records = read_log(run / "log.jsonl")
    return [{k: v for k, v in record.items() if k not in TIMES} for record in records]


def assert_same_run(run: Path, reference: Path) -> None:
    """Fail unless two runs have the same log and the same bits in both checkpoints."""
    assert timeless_log(run) == timeless_log(reference)
    for name in ("last.safetensors", "best.safetensors"):
        got, want = checkpoint.read(run / name), checkpoint.read(reference / name)
        assert got.arrays.keys() == want.arrays.keys()
        for key, array in want.arrays.items():
            assert np.array_equal(got.arrays[key], array), f"{name}: {key}"
        for info in (got.info, want.info):
            info["position"].pop("seconds")
            info.pop("log_position")  # times are of different lengths
        assert got.info == want.info
