"""Finding runs, reading them back, and taking weights from one into another."""

from __future__ import annotations

import difflib
import warnings
from pathlib import Path

import numpy as np

from minidnn import checkpoint
from minidnn.checkpoint import SUFFIX, Checkpoint, CheckpointWarning
from minidnn.config import Config
from minidnn.errors import CheckpointError
from minidnn.module import Module
from minidnn.tensor import Array

OTHER = {"best": "last", "last": "best"}


def find(run: Path) -> Path:
    """Return the folder of a run, given that or a checkpoint in it.

    Raises
    ------
    CheckpointError
        If there is no checkpoint; the nearest name of a run beside it is given.
    """
    folder = run.parent if run.name.endswith(SUFFIX) else run
    if any(checkpoint.exists(folder / f"{which}{SUFFIX}") for which in OTHER):
        return folder
    beside = folder.parent
    names = [p.parent.name for p in beside.glob(f"*/*{SUFFIX}")] if beside.is_dir() else []
    near = difflib.get_close_matches(folder.name, names, n=1)
    hint = f"; did you mean {beside / near[0]}?" if near else ""
    raise CheckpointError(f"{run}: no run with a checkpoint is there{hint}")


def read(folder: Path, which: str) -> Checkpoint:
    """Read a run's ``best`` or ``last`` checkpoint; where it is lost, the other, with a warning.

    Raises
    ------
    CheckpointError
        If none of a run's checkpoints can be read.
    """
    try:
        return checkpoint.read_latest(folder / f"{which}{SUFFIX}")
    except CheckpointError as error:
        other = folder / f"{OTHER[which]}{SUFFIX}"
        if not checkpoint.exists(other):
            raise
        state = checkpoint.read_latest(other)
        warnings.warn(f"{error}; using {state.path} instead", CheckpointWarning, stacklevel=2)
        return state


def config_of(state: Checkpoint) -> Config:
    """Return the settings of the run that a checkpoint belongs to."""
    return Config.from_dict(state.info["config"])


def weights(state: Checkpoint, *, averaged: bool = True) -> dict[str, Array]:
    """Return a model's state dict: its moving average where asked for and there is one."""
    own = state.part("model")
    if averaged:
        own |= {name: a for name, a in state.part("ema").items() if name in own}
    return own


def has_average(state: Checkpoint) -> bool:
    """Return whether a checkpoint holds a moving average of the weights."""
    return bool(state.part("ema"))


def normalisation(state: Checkpoint) -> tuple[Array, Array]:
    """Return mean and standard deviation (C,) by which the run normalises pixels."""
    p = state.info["preprocessing"]
    return np.asarray(p["mean"], np.float32), np.asarray(p["std"], np.float32)


def classes(state: Checkpoint) -> list[str]:
    """Return what a run's labels stand for."""
    return list(state.info["preprocessing"]["classes"])


def input_shape(state: Checkpoint) -> tuple[int, int, int]:
    """Return (H, W, C) of the pictures a run was trained on."""
    h, w, c = state.info["preprocessing"]["input_shape"]
    return h, w, c


def take_weights(model: Module, state: Checkpoint, num_classes: int) -> list[str]:
    """Copy a run's weights into a model that may have another number of classes.

    Averaged weights and float statistics are copied; counters and seeds stay the model's own.

    Parameters
    ----------
    model : Module
    state : Checkpoint
        Of the run to start from.
    num_classes : int
        The model's; arrays whose last axis has it in place of the run's keep their fresh values.

    Returns
    -------
    list of str
        Names of the arrays that keep their fresh values.

    Raises
    ------
    CheckpointError
        If the networks differ in more than that.
    """
    theirs, own, before = weights(state), model.state_dict(), len(classes(state))
    fresh, wrong = [], [f"{name} is missing" for name in sorted(own.keys() ^ theirs.keys())]
    for name in own.keys() & theirs.keys():
        mine, other = own[name].shape, theirs[name].shape
        head = mine[:-1] == other[:-1] and (mine[-1:], other[-1:]) == ((num_classes,), (before,))
        if mine != other and head:
            fresh.append(name)
        elif mine != other:
            wrong.append(f"{name}: expected {mine}, got {other}")
    if wrong:
        raise CheckpointError(
            f"{state.path}: weights of another network: {'; '.join(sorted(wrong)[:3])}"
            + (f"; and {len(wrong) - 3} more" if len(wrong) > 3 else "")
        )
    for name, array in own.items():
        if name not in fresh and array.dtype.kind == "f":
            array[...] = theirs[name]
    return [name for name in own if name in fresh]
