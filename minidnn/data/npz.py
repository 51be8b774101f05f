"""A user's own pictures in one NumPy archive: ``images``, ``labels`` and maybe ``classes``."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np

from minidnn.data.dataset import Array, Dataset
from minidnn.errors import DataError
from minidnn.kernels.checks import describe

KEYS = "images (uint8, N x H x W x C), labels (integers, N) and, if wanted, classes (strings)"
HOW = "np.savez(FILE, images=..., labels=...)"
WANTED = ("images", "labels", "classes")
MOST_CLASSES = 10_000  # beyond, labels are more likely other numbers, or wrapped around
UNREADABLE = (OSError, ValueError, EOFError, KeyError, AttributeError, TypeError,
              zipfile.BadZipFile, zlib.error, NotImplementedError)  # fmt: skip


def read_npz(path: Path) -> Dataset:
    """Read pictures from ``FILE.npz``; pickled objects are never loaded.

    Parameters
    ----------
    path : Path
        Holds ``images`` (uint8, (N, H, W, C)), ``labels`` (integers, (N,)) and optionally
        ``classes`` (strings, (K,)); without it the classes are called 0, 1, ...

    Raises
    ------
    DataError
        If the file is missing or damaged, or an array is missing or of the wrong kind.
    """
    try:
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            names = list(getattr(archive, "files", []))  # an .npy file holds one array, no names
            arrays = {key: archive[key] for key in WANTED if key in names}
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except UNREADABLE as error:
        raise DataError(f"{path}: not an .npz file with {KEYS}: {error}") from None
    missing = [key for key in ("images", "labels") if key not in arrays]
    if missing:
        raise DataError(
            f"{path}: expected {KEYS}; {' and '.join(missing)} not among "
            f"{', '.join(names) or 'its (no) arrays'}; write it with {HOW}"
        )
    images, labels = _images(arrays["images"], path), _labels(arrays["labels"], path)
    if "classes" in arrays:
        classes = _names(arrays["classes"], path)
    else:
        highest = int(labels.max(initial=0))
        if highest >= MOST_CLASSES:
            raise DataError(
                f"{path}: labels: expected classes numbered from 0, at most {MOST_CLASSES:,}, got "
                f"{highest:,}; number them anew: np.unique(labels, return_inverse=True)"
            )
        classes = [str(i) for i in range(max(2, highest + 1))]
    return Dataset(images, labels, classes, str(path))


def _images(images: Array, path: Path) -> Array:
    if images.dtype != np.uint8 or images.ndim != 4:
        hint = ""
        if images.dtype.kind == "f":
            bad = int(np.count_nonzero(~np.isfinite(images)))
            hint = (
                f", {bad} of its pixels are NaN or infinite"
                if bad
                else "; scale it yourself, e.g. (images * 255).round().astype(np.uint8)"
            )
        elif images.ndim == 3:
            hint = "; give grey pictures a last axis, images[..., None]"
        raise DataError(
            f"{path}: images: expected uint8 of shape (N, H, W, C), got {describe(images)}{hint}"
        )
    return np.ascontiguousarray(images)


def _labels(labels: Array, path: Path) -> Array:
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        raise DataError(f"{path}: labels: expected integers, shape (N,), got {describe(labels)}")
    return labels.astype(np.int64)


def _names(classes: Array, path: Path) -> list[str]:
    if classes.dtype.kind not in "U" or classes.ndim != 1 or len(set(classes)) != len(classes):
        raise DataError(
            f"{path}: classes: expected different strings, shape (K,), got {describe(classes)}"
        )
    return [str(name) for name in classes]
