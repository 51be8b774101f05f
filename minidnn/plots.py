"""Pictures of runs, with the `plot` extra: learning curves and confusion matrices."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from minidnn.errors import ConfigError, MissingExtraError
from minidnn.tensor import Array


def available() -> bool:
    """Return whether matplotlib is installed."""
    return find_spec("matplotlib") is not None


def new_figure(width: float, height: float) -> Any:
    """Return an empty matplotlib figure of so many inches.

    Raises
    ------
    MissingExtraError
        If matplotlib is not installed.
    """
    if not available():
        raise MissingExtraError("plots need matplotlib: python -m pip install 'minidnn[plot]'")
    from matplotlib.figure import Figure  # no pyplot: no global state, no display

    return Figure(figsize=(width, height), layout="constrained")


def check_folder(path: Path) -> None:
    """Raise unless the folder of a file to be written exists.

    Raises
    ------
    ConfigError
    """
    if not path.parent.is_dir():
        raise ConfigError(f"{path}: there is no folder {path.parent}")


def check_picture(path: Path) -> None:
    """Raise unless a picture of that name can be drawn: before the work, not after it.

    Raises
    ------
    MissingExtraError
        If matplotlib is not installed.
    ConfigError
        If there is no such folder, or matplotlib draws no such files.
    """
    check_folder(path)
    kinds = new_figure(1, 1).canvas.get_supported_filetypes()
    if path.suffix[1:] not in kinds:
        raise ConfigError(f"{path}: expected a picture such as {path.stem}.png or .svg")


def curves(records: Sequence[dict[str, Any]], path: Path, *, title: str = "") -> None:
    """Draw loss, accuracy and learning rate over the epochs of a log into a PNG file.

    Raises
    ------
    MissingExtraError
        If matplotlib is not installed.
    """
    epochs = [record for record in records if record["type"] == "epoch"]
    figure = new_figure(9, 5.5)
    axes = figure.subplots(3, 1, sharex=True, height_ratios=[3, 3, 1])
    x = [record["epoch"] for record in epochs]
    for axis, quantity in zip(axes, ("loss", "accuracy"), strict=False):
        for part, label in (("train", "training"), ("val", "validation"), ("test", "test")):
            key = f"{part}_{quantity}"
            if epochs and key in epochs[0]:
                axis.plot(x, [record[key] for record in epochs], marker=".", label=label)
        axis.set_ylabel(quantity)
        axis.grid(alpha=0.3)
    axes[0].legend()
    axes[2].plot(x, [record["lr"] for record in epochs], color="grey", marker=".")
    axes[2].set_ylabel("lr")
    axes[2].set_xlabel("epoch")
    axes[2].xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)  # no epoch 1.25
    figure.suptitle(title)
    figure.savefig(path, dpi=120)


def confusion(matrix: Array, classes: Sequence[str], path: Path, *, title: str = "") -> None:
    """Draw a confusion matrix (K, K), rows true classes, as shares of each row, into a PNG file.

    Raises
    ------
    MissingExtraError
        If matplotlib is not installed.
    """
    k = len(classes)
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    side = min(20.0, 2.5 + 0.5 * k)
    figure = new_figure(side + 1, side)
    axis = figure.subplots()
    image = axis.imshow(share, vmin=0, vmax=1, cmap="Blues")
    figure.colorbar(image, label="share of the true class")
    axis.set_xticks(range(k), classes, rotation=90)
    axis.set_yticks(range(k), classes)
    axis.set_xlabel("taken for")
    axis.set_ylabel("true class")
    figure.suptitle(title, size="medium", wrap=True)
    for row, column in np.argwhere(matrix) if k <= 20 else ():
        colour = "white" if share[row, column] > 0.5 else "black"
        axis.text(column, row, str(matrix[row, column]), ha="center", va="center", color=colour)
    figure.savefig(path, dpi=120)
