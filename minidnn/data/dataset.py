"""`Dataset`: pictures and labels in memory, checked once, so that nothing later has to guess."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minidnn.errors import DataError
from minidnn.kernels.checks import describe

Array = NDArray[Any]


@dataclass(frozen=True)
class Dataset:
    """Labelled pictures.

    Attributes
    ----------
    images : ndarray
        uint8, C-contiguous, shape (N, H, W, C).
    labels : ndarray
        int64, shape (N,), each in ``range(len(classes))``.
    classes : list of str
        What the labels stand for.
    name : str
        Where the pictures come from, such as ``"cifar10"``.
    note : str
        What must be said beside any accuracy measured on them; empty when nothing.

    Raises
    ------
    DataError
        If an array has another dtype or shape, a label is out of range, or no image is there.
    """

    images: Array
    labels: Array
    classes: list[str]
    name: str
    note: str = ""

    def __post_init__(self) -> None:
        images, labels, n_classes = self.images, self.labels, len(self.classes)
        if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.ndim != 4:
            raise DataError(
                f"{self.name}: images: expected a uint8 array (N, H, W, C), got {describe(images)}"
            )
        if images.size == 0:
            raise DataError(f"{self.name}: expected at least one image, got shape {images.shape}")
        if not images.flags.c_contiguous:
            raise DataError(
                f"{self.name}: images: expected a C-contiguous array; use np.ascontiguousarray"
            )
        if not isinstance(labels, np.ndarray) or labels.dtype != np.int64:
            raise DataError(f"{self.name}: labels: expected int64, got {describe(labels)}")
        if labels.shape != images.shape[:1]:
            raise DataError(
                f"{self.name}: expected one label per image, got {labels.shape} labels "
                f"for {len(images)} images"
            )
        check_labels(labels, n_classes, self.name)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Return (H, W, C) of one picture."""
        _, h, w, c = self.images.shape
        return h, w, c

    def subset(self, index: Array) -> Dataset:
        """Return the pictures at the given positions, in that order, copied."""
        return replace(self, images=self.images[index], labels=self.labels[index])

    def first(self, n: int | None) -> Dataset:
        """Return the first `n` pictures (all where there are fewer, or `n` is None) without a copy.

        Raises
        ------
        DataError
            If `n` is less than 1.
        """
        if n is None:
            return self
        if n < 1:
            raise DataError(f"{self.name}: limit: expected at least 1 image, got {n}")
        return replace(self, images=self.images[:n], labels=self.labels[:n])


def check_labels(labels: Array, n_classes: int, where: str) -> None:
    """Raise DataError naming the first label that is not in ``range(n_classes)``."""
    bad = np.flatnonzero((labels < 0) | (labels >= n_classes))
    if bad.size:
        raise DataError(
            f"{where}: label of image {bad[0]}: expected 0 to {n_classes - 1}, "
            f"got {labels[bad[0]]} ({bad.size} labels out of range)"
        )


def channel_statistics(images: Array) -> tuple[Array, Array]:
    """Return mean and standard deviation per channel, of pixels scaled to 0..1.

    Exact: pixel values are counted, so the order of the images does not matter.

    Parameters
    ----------
    images : ndarray
        uint8, shape (N, H, W, C).

    Returns
    -------
    mean, std : ndarray
        float32, shape (C,). A channel that never changes gets std 1, so it can be divided by.
    """
    channels = images.shape[-1]
    counts = np.zeros((channels, 256))
    for start in range(0, len(images), 1000):
        pixels = images[start : start + 1000].reshape(-1, channels)
        counts += [np.bincount(pixels[:, c], minlength=256) for c in range(channels)]
    share = counts / counts.sum(axis=1, keepdims=True)
    values = np.arange(256) / 255
    mean = share @ values
    std = np.sqrt(np.sum(share * (values - mean[:, None]) ** 2, axis=1))
    std[std == 0] = 1
    return mean.astype(np.float32), std.astype(np.float32)
