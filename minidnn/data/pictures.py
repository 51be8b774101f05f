"""Pictures from files: one, or a folder with a subfolder per class. Needs Pillow."""

from __future__ import annotations

import struct
from pathlib import Path
from types import ModuleType

import numpy as np

from minidnn.data.dataset import Array, Dataset
from minidnn.errors import ConfigError, DataError, MissingExtraError

SUFFIXES = (".png", ".jpg", ".jpeg")


def pillow() -> ModuleType:
    """Return Pillow's `Image` module.

    Raises
    ------
    MissingExtraError
        Naming the command that installs it.
    """
    try:
        from PIL import Image
    except ImportError:
        raise MissingExtraError(
            "picture files need Pillow: python -m pip install 'minidnn[images]'"
        ) from None
    return Image


def read_picture(path: str | Path, size: tuple[int, int], channels: int = 3) -> tuple[Array, str]:
    """Read a picture of any size and bring it to `size`.

    It is turned upright as its EXIF data say, laid on white where it is transparent, scaled
    (antialiased) until it just covers the wanted size, and its middle is cut out.

    Parameters
    ----------
    path : path
    size : tuple of int
        Height and width.
    channels : {3, 1}
        Colour or grey.

    Returns
    -------
    picture : ndarray
        uint8, shape (H, W, channels).
    how : str
        What was done to its size; empty if nothing.

    Raises
    ------
    DataError
        If the file is missing or not a picture Pillow can read.
    MissingExtraError
        If Pillow is not installed.
    """
    image_module = pillow()
    from PIL import ImageOps

    if channels not in (1, 3):
        raise ConfigError(f"picture files have 3 or 1 channels, the model expects {channels}")
    height, width = size
    unreadable = (OSError, SyntaxError, ValueError, EOFError, struct.error)
    try:
        with image_module.open(path) as opened:
            image = ImageOps.exif_transpose(opened)
            if image.has_transparency_data:
                image = image.convert("RGBA")
                white = image_module.new("RGBA", image.size, "white")
                image = image_module.alpha_composite(white, image)
            image = image.convert("RGB" if channels == 3 else "L")
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (*unreadable, image_module.DecompressionBombError) as error:
        raise DataError(f"{path}: not a picture that can be read: {error}") from None
    how = ""
    if image.size != (width, height):
        how = f"{image.size[0]}x{image.size[1]} scaled to cover {width}x{height}, middle cut out"
        image = ImageOps.fit(image, (width, height), image_module.Resampling.BICUBIC)
    return np.asarray(image, np.uint8).reshape(height, width, channels), how


def read_folder(root: Path, size: int) -> tuple[Dataset, Dataset | None]:
    """Read ``root/CLASS/*.png|jpg|jpeg``, or ``root/train/CLASS/...`` and ``root/test/CLASS/...``.

    Parameters
    ----------
    root : Path
    size : int
        Height and width that all pictures are brought to.

    Returns
    -------
    train : Dataset
        All pictures, where the folder makes no difference between train and test.
    test : Dataset or None

    Raises
    ------
    DataError
        If a folder or its pictures are missing, or a file cannot be read.
    """
    if not root.is_dir():
        raise DataError(f"{root}: expected a folder with one subfolder of pictures per class")
    if size < 1:
        raise ConfigError(f"size of pictures: expected at least 1, got {size}")
    if (root / "train").is_dir() and (root / "test").is_dir():
        classes = _class_names(root / "train")
        if classes != _class_names(root / "test"):
            raise DataError(f"{root}: train and test have different class folders")
        return _read_classes(root / "train", classes, size), _read_classes(
            root / "test", classes, size
        )
    return _read_classes(root, _class_names(root), size), None


def _class_names(root: Path) -> list[str]:
    names = sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not names:
        raise DataError(f"{root}: expected one subfolder of pictures per class, found none")
    return names


def _read_classes(root: Path, classes: list[str], size: int) -> Dataset:
    images, labels, resized = [], [], False
    for label, name in enumerate(classes):
        files = sorted(p for p in (root / name).iterdir() if p.suffix.lower() in SUFFIXES)
        if not files:
            raise DataError(f"{root / name}: expected {', '.join(SUFFIXES)} files, found none")
        for file in files:
            picture, how = read_picture(file, (size, size))
            images.append(picture)
            labels.append(label)
            resized |= bool(how)
    note = f"pictures scaled to cover {size}x{size}, middle cut out" if resized else ""
    return Dataset(np.stack(images), np.array(labels, np.int64), classes, f"folder:{root}", note)


def sheet(dataset: Dataset, columns: int, scale: int = 2) -> Array:
    """Return one picture of many: a row per class, the first `columns` of each.

    Returns
    -------
    ndarray
        uint8, (classes * H * scale, columns * W * scale, 3).
    """
    h, w, channels = dataset.input_shape
    page = np.full((len(dataset.classes), h, columns, w, channels), 255, np.uint8)
    for label in range(len(dataset.classes)):
        chosen = np.flatnonzero(dataset.labels == label)[:columns]
        page[label, :, : len(chosen)] = dataset.images[chosen].transpose(1, 0, 2, 3)
    flat = page.reshape(len(dataset.classes) * h, columns * w, channels)
    large = flat.repeat(scale, axis=0).repeat(scale, axis=1)
    return np.ascontiguousarray(np.broadcast_to(large, (*large.shape[:2], 3)))
