"""Which pictures train, which choose the best epoch, and which are only ever reported on."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from minidnn.data.dataset import Array, Dataset
from minidnn.errors import ConfigError, DataError

PAPER_NOTE = "the best epoch is chosen and reported on the same held-out images"


@dataclass(frozen=True)
class Splits:
    """Three sets of pictures.

    Attributes
    ----------
    train : Dataset
    val : Dataset
        For the best epoch and early stopping.
    test : Dataset
        For reports alone; under the paper's protocol the same as `val`.
    """

    train: Dataset
    val: Dataset
    test: Dataset


def _shuffled(n: int, seed: int) -> Array:
    # The key's second half sets these numbers apart from those of any epoch's order.
    return np.random.Generator(np.random.Philox(key=[seed, 2**63])).permutation(n)


def stratified(labels: Array, count: int, seed: int) -> tuple[Array, Array]:
    """Cut at random, every class in proportion, give or take one.

    Parameters
    ----------
    labels : ndarray
        int64, shape (N,).
    count : int
        How many to cut off.
    seed : int

    Returns
    -------
    rest, cut : ndarray
        Sorted indices, (N - count,) and (count,).
    """
    order = _shuffled(len(labels), seed)
    # Each picture's place within its class, as a share of the class; the smallest are cut off.
    by_class = order[np.argsort(labels[order], kind="stable")]
    sizes = np.bincount(labels)
    place = np.concatenate([(np.arange(size) + 0.5) / size for size in sizes if size])
    ranked = by_class[np.argsort(place, kind="stable")]
    return np.sort(ranked[count:]), np.sort(ranked[:count])


def cut(dataset: Dataset, count: int, seed: int = 0) -> tuple[Dataset, Dataset]:
    """Return (the rest, `count` pictures cut off at random in proportion to their classes).

    Raises
    ------
    DataError
        If there is but one picture.
    ConfigError
        Unless both parts get at least one picture.
    """
    if len(dataset) < 2:
        raise DataError(
            f"{dataset.name}: expected at least 2 images to cut into some to train on and some "
            f"held out, got {len(dataset)}"
        )
    if not 1 <= count < len(dataset):
        raise ConfigError(
            f"{dataset.name}: held-out images: expected 1 to {len(dataset) - 1} "
            f"of {len(dataset)}, got {count}"
        )
    rest, held_out = stratified(dataset.labels, count, seed)
    return dataset.subset(rest), dataset.subset(held_out)


def official(train: Dataset, test: Dataset, val: int | None = None, seed: int = 0) -> Splits:
    """Keep the test set as it is and cut the validation set off the training set.

    Parameters
    ----------
    train, test : Dataset
    val : int, optional
        Size of the validation set; default: a tenth of the training set (CIFAR: 5,000).
    seed : int
    """
    rest, held_out = cut(train, max(1, len(train) // 10) if val is None else val, seed)
    return Splits(rest, held_out, test)


def paper(train: Dataset, test: Dataset, held_out: int | None = None, seed: int = 0) -> Splits:
    """Join all pictures and hold some out at random, as the QuickNet paper does (section 4).

    Parameters
    ----------
    train, test : Dataset
    held_out : int, optional
        Default: a tenth (CIFAR: 6,000 of 60,000).
    seed : int
    """
    whole = join(train, test)
    whole = replace(whole, note="; ".join(filter(None, (whole.note, PAPER_NOTE))))
    count = len(whole) // 10 if held_out is None else held_out
    order = _shuffled(len(whole), seed)
    if not 1 <= count < len(whole):
        raise ConfigError(f"held-out images: expected 1 to {len(whole) - 1}, got {count}")
    held = whole.subset(np.sort(order[:count]))
    return Splits(whole.subset(np.sort(order[count:])), held, held)


def join(a: Dataset, b: Dataset) -> Dataset:
    """Return the pictures of two sets with the same classes as one set."""
    if a.classes != b.classes or a.input_shape != b.input_shape:
        raise ConfigError(f"{a.name}: cannot join sets with different classes or picture sizes")
    return replace(
        a,
        images=np.concatenate([a.images, b.images]),
        labels=np.concatenate([a.labels, b.labels]),
    )
