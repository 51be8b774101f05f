"""What several commands do: threads, building a run's model, reading its data."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from minidnn.checkpoint import Checkpoint
    from minidnn.config import Config
    from minidnn.data import Splits
    from minidnn.module import Module
    from minidnn.plan.compiler import Plan

MOST_THREADS = 256


def add_threads(parser: argparse.ArgumentParser) -> None:
    """Declare ``--threads``."""
    parser.add_argument(
        "--threads", type=int, metavar="N", help="default: the CPUs given to this process"
    )


def cpus() -> int:
    """Return the number of CPUs this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def set_threads(n: int | None) -> None:
    """Use `n` threads, more than there are CPUs if asked; call it before numba is imported.

    Raises
    ------
    ConfigError
        If `n` is out of range.
    """
    if n is None:
        return
    from minidnn.errors import ConfigError

    if not 1 <= n <= MOST_THREADS:
        raise ConfigError(f"--threads: expected 1 to {MOST_THREADS}, got {n}")
    set_before = os.environ.get("NUMBA_NUM_THREADS", "")
    room = int(set_before) if set_before.isdigit() else cpus()
    if n > room:
        os.environ["NUMBA_NUM_THREADS"] = str(n)
    from minidnn.threads import set_num_threads

    try:
        set_num_threads(n)
    except ValueError as error:
        raise ConfigError(f"--{error}") from error


def build_model(config: Config, classes: int, input_shape: tuple[int, int, int]) -> Module:
    """Build the network a configuration names, with weights drawn from its seed."""
    import numpy as np

    from minidnn.models import build

    arguments = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in config.arguments.items()
    }
    rng = np.random.default_rng(config.seed)
    model: Module = build(
        config.model, num_classes=classes, input_shape=input_shape, rng=rng, **arguments
    )
    return model


def load_data(config: Config) -> Splits:
    """Read and split the data a configuration names."""
    from minidnn.data import load_splits

    return load_splits(
        config.data,
        protocol=config.protocol,
        val=config.val or None,
        data_dir=config.data_dir or None,
        limit=config.limit or None,
        size=config.size,
        seed=config.seed,
    )


def open_run(run: str, which: str, averaged: bool) -> tuple[Checkpoint, Config, Module, str]:
    """Return a run's checkpoint, settings, model with its weights, and a line saying which.

    Raises
    ------
    CheckpointError
        If there is no such run, or it cannot be read.
    """
    from minidnn import runs

    folder = runs.find(Path(run))
    state = runs.read(folder, which)
    config = runs.config_of(state)
    model = build_model(config, len(runs.classes(state)), runs.input_shape(state))
    model.load_state_dict(runs.weights(state, averaged=averaged))
    model.eval()
    kind = "averaged (EMA) weights" if averaged and runs.has_average(state) else "weights"
    position = state.info["position"]
    file = state.path.name if state.path else which
    at = f"epoch {position['epoch']}, step {position['step']}"
    return state, config, model, f"{folder}: {config.model}, {kind} of {file} ({at})"


def open_model(
    run: str, which: str, averaged: bool
) -> tuple[Checkpoint, Config, Module | Plan, str]:
    """As `open_run`, for the folder of a run or the file of a compiled model."""
    from minidnn.plan import file

    if not run.endswith(file.SUFFIX):
        return open_run(run, which, averaged)
    from minidnn import checkpoint, runs

    path = Path(run)
    saved = file.load(path)
    state = checkpoint.Checkpoint({}, saved.info, path)
    return state, runs.config_of(state), saved.plan, f"{path}: {saved.info['about']}"


def percent(share: float) -> str:
    """Return 0.9312 as '93.12 %'."""
    return f"{100 * share:.2f} %"
