"""`load` and `load_splits`: from what stands behind ``--data`` to pictures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from minidnn.data import cifar, splits
from minidnn.data.dataset import Dataset
from minidnn.data.npz import read_npz
from minidnn.data.pictures import read_folder
from minidnn.data.shapes import draw_shapes
from minidnn.data.splits import Splits
from minidnn.errors import ConfigError, DataError
from minidnn.kernels.ladder import unknown

NAMES = ("shapes", "cifar10", "cifar100", "folder:PATH", "FILE.npz")
PROTOCOLS = {"official": splits.official, "paper": splits.paper}

# A user's own pictures have no official test set: so many are cut off, always the same ones.
TEST_SHARE = 0.2
CUT_NOTE = "tested on a random fifth of the pictures"


def load(
    name: str,
    *,
    split: str = "train",
    data_dir: str | Path | None = None,
    limit: int | None = None,
    size: int = 32,
    seed: int = 0,
) -> Dataset:
    """Read one split of a data set.

    Parameters
    ----------
    name : str
        ``shapes``, ``cifar10``, ``cifar100``, ``folder:PATH`` or a path that ends in ``.npz``.
    split : {"train", "test"}
    data_dir : path, optional
        Where CIFAR's binary files are; default: the download cache.
    limit : int, optional
        Take the first `limit` pictures only.
    size : int
        Height and width that the pictures of a folder are brought to.
    seed : int
        Of the pictures of ``shapes``.

    Raises
    ------
    DataError
        If the name or split is unknown, or a file is missing or corrupted.
    MissingExtraError
        If a folder is asked for without Pillow.
    """
    if split not in ("train", "test"):
        raise DataError(f"{name}: split: expected train or test, got {split!r}")
    if name == "shapes":
        dataset = draw_shapes(split, seed=seed)
    elif name in cifar.FORMATS:
        dataset = cifar.read(name, split, data_dir)
    else:
        dataset = _own(name, size)[split == "test"]
    return dataset.first(limit)


def _own(name: str, size: int) -> tuple[Dataset, Dataset]:
    """Read a user's own pictures, (train, test)."""
    if name == "folder:":
        raise DataError("folder: expected a folder's name after it, as in folder:pictures")
    if name.startswith("folder:"):
        whole, test = read_folder(Path(name.removeprefix("folder:")).expanduser(), size)
        if test is not None:
            return whole, test
    elif name.endswith(".npz"):
        whole = read_npz(Path(name).expanduser())
    else:
        raise DataError(unknown("data set", name, NAMES))
    whole = replace(whole, note="; ".join(filter(None, (whole.note, CUT_NOTE))))
    return splits.cut(whole, max(1, round(len(whole) * TEST_SHARE)))


def load_splits(
    name: str,
    *,
    protocol: str = "official",
    val: int | None = None,
    data_dir: str | Path | None = None,
    limit: int | None = None,
    size: int = 32,
    seed: int = 0,
) -> Splits:
    """Read a data set and cut it into training, validation and test pictures.

    Parameters
    ----------
    name, data_dir, size
        As for `load`.
    protocol : {"official", "paper"}
        ``official``: the validation set is cut off the official training set. ``paper``: all
        pictures are shuffled and some held out, which then serve as validation and test set.
    val : int, optional
        How many to cut off or hold out; default: a tenth.
    limit : int, optional
        Train on at most so many pictures; validation and test stay whole.
    seed : int
        Of the cut. The pictures of ``shapes`` are always those of seed 0.

    Raises
    ------
    DataError, ConfigError, MissingExtraError
    """
    if protocol not in PROTOCOLS:
        raise ConfigError(unknown("protocol", protocol, PROTOCOLS))
    if name == "shapes" or name in cifar.FORMATS:
        train = load(name, split="train", data_dir=data_dir)
        test = load(name, split="test", data_dir=data_dir)
    else:
        train, test = _own(name, size)
    parts = PROTOCOLS[protocol](train, test, val, seed)
    return Splits(parts.train.first(limit), parts.val, parts.test)
