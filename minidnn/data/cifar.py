"""CIFAR-10 and CIFAR-100 in the official binary format (Krizhevsky 2009), read without pickle.

A record is one label byte (CIFAR-100: a coarse one, then a fine one) and 3,072 pixels: the
red plane row by row, then green, then blue. https://www.cs.toronto.edu/~kriz/cifar.html
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import platformdirs

from minidnn.data.dataset import Array, Dataset, check_labels
from minidnn.errors import DataError
from minidnn.kernels.ladder import unknown

SIZE = 32
PIXELS = SIZE * SIZE * 3
RECORDS = 10_000  # in each file of CIFAR-10

# Written beside the files by our own extraction: which archive they came from, and their SHA-256.
MARKER = "minidnn-verified.json"
# Put there by whoever made a copy: its first line says what it is, such as "JPEG copy".
NOTE = "note.txt"
UNVERIFIED = "not verified to be the official archive"


@dataclass(frozen=True)
class Format:
    """What one of the two data sets consists of.

    Attributes
    ----------
    name, folder, url, md5 : str
        The archive's address and checksum as published on the data sets' page.
    label_bytes : int
        How many precede the pixels; the last one counts.
    n_classes : int
    records : dict
        File name to number of records, per split.
    names : str
        File of class names, one a line.
    sha1 : dict
        File name to checksum, as published in Apache MXNet (gluon/data/vision/datasets.py).
    """

    name: str
    folder: str
    url: str
    md5: str
    label_bytes: int
    n_classes: int
    records: dict[str, dict[str, int]]
    names: str
    sha1: dict[str, str]

    @property
    def record_size(self) -> int:
        """Bytes of one record."""
        return self.label_bytes + PIXELS

    def members(self) -> list[str]:
        """Return every file to take out of the archive."""
        return [name for files in self.records.values() for name in files] + [self.names]


FORMATS = {
    "cifar10": Format(
        name="cifar10",
        folder="cifar-10-batches-bin",
        url="https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
        md5="c32a1d4ab5d03f1284b67883e8d87530",
        label_bytes=1,
        n_classes=10,
        records={
            "train": {f"data_batch_{i}.bin": RECORDS for i in range(1, 6)},
            "test": {"test_batch.bin": RECORDS},
        },
        names="batches.meta.txt",
        sha1={
            "data_batch_1.bin": "aadd24acce27caa71bf4b10992e9e7b2d74c2540",
            "data_batch_2.bin": "c0ba65cce70568cd57b4e03e9ac8d2a5367c1795",
            "data_batch_3.bin": "1dd00a74ab1d17a6e7d73e185b69dbf31242f295",
            "data_batch_4.bin": "aab85764eb3584312d3c7f65fd2fd016e36a258e",
            "data_batch_5.bin": "26e2849e66a845b7f1e4614ae70f4889ae604628",
            "test_batch.bin": "67eb016db431130d61cd03c7ad570b013799c88c",
        },
    ),
    "cifar100": Format(
        name="cifar100",
        folder="cifar-100-binary",
        url="https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
        md5="03b5dce01913d631647c71ecec9e9cb8",
        label_bytes=2,
        n_classes=100,
        records={"train": {"train.bin": 50_000}, "test": {"test.bin": 10_000}},
        names="fine_label_names.txt",
        sha1={
            "train.bin": "e207cd2e05b73b1393c74c7f5e7bea451d63e08e",
            "test.bin": "8fb6623e830365ff53cf14adec797474f5478006",
        },
    ),
}


def format_named(name: str) -> Format:
    """Return a format by name.

    Raises
    ------
    DataError
        With the nearest known name.
    """
    if name not in FORMATS:
        raise DataError(unknown("data set with an archive", name, FORMATS))
    return FORMATS[name]


def cache_dir() -> Path:
    """Return the folder that downloads go to."""
    return Path(platformdirs.user_cache_dir("minidnn")) / "data"


def find_folder(form: Format, data_dir: str | Path | None) -> Path:
    """Return the folder of binary files: `data_dir` itself, or where it stands in `data_dir`.

    Raises
    ------
    DataError
        If neither exists.
    """
    root = cache_dir() if data_dir is None else Path(data_dir).expanduser()
    for folder in (root / form.folder, root):
        if any((folder / name).is_file() for files in form.records.values() for name in files):
            return folder
    hint = f"run: minidnn data get {form.name}, or name its folder with --data-dir"
    if data_dir is not None:
        hint = (
            f"give the folder that holds {form.folder}, or run: minidnn data get {form.name} "
            f"--data-dir {data_dir}"
        )
    raise DataError(f"{form.name}: no files in {root / form.folder} or {root}; {hint}")


def downloaded(form: Format) -> bool:
    """Return whether the download cache holds any of the data set's files."""
    try:
        find_folder(form, None)
    except DataError:
        return False
    return True


def read(name: str, split: str, data_dir: str | Path | None = None) -> Dataset:
    """Read one split.

    Parameters
    ----------
    name : {"cifar10", "cifar100"}
    split : {"train", "test"}
    data_dir : path, optional
        The folder with the binary files or its parent; default: the download cache.

    Returns
    -------
    Dataset
        Its `note` says what has to stand beside an accuracy where the files are not known to
        be the official ones.

    Raises
    ------
    DataError
        If a file is missing, truncated or corrupted.
    """
    form = format_named(name)
    folder = find_folder(form, data_dir)
    if split not in form.records:
        raise DataError(f"{name}: split: expected train or test, got {split!r}")
    parts = [read_file(folder / file, form) for file in form.records[split]]
    images = np.concatenate([images for images, _ in parts])
    labels = np.concatenate([labels for _, labels in parts])
    return Dataset(images, labels, class_names(folder, form), name, note(folder, form))


def read_file(path: Path, form: Format) -> tuple[Array, Array]:
    """Return images (N, 32, 32, 3) uint8 and labels (N,) int64 of one file.

    Raises
    ------
    DataError
        Naming the file, what was expected and what came.
    """
    try:
        raw = np.fromfile(path, np.uint8)
    except FileNotFoundError:
        raise DataError(f"{path}: missing; expected it beside {form.name}'s other files") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None
    if raw.size == 0 or raw.size % form.record_size:
        raise DataError(
            f"{path}: truncated or not {form.name}: expected a multiple of {form.record_size} "
            f"bytes (officially {form.record_size * _official_records(path.name, form):,}), "
            f"got {raw.size:,}"
        )
    records = raw.reshape(-1, form.record_size)
    labels = records[:, form.label_bytes - 1].astype(np.int64)
    check_labels(labels, form.n_classes, str(path))
    planes = records[:, form.label_bytes :].reshape(-1, 3, SIZE, SIZE)
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), labels


def _official_records(file: str, form: Format) -> int:
    return next(files[file] for files in form.records.values() if file in files)


def class_names(folder: Path, form: Format) -> list[str]:
    """Return the class names from the folder's text file, or numbers where there is none.

    Raises
    ------
    DataError
        If the file holds another number of names.
    """
    path = folder / form.names
    try:
        names = [line.strip() for line in path.read_text("utf-8").splitlines() if line.strip()]
    except FileNotFoundError:
        return [str(i) for i in range(form.n_classes)]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as text: {error}") from None
    if len(names) != form.n_classes or len(set(names)) != len(names):
        raise DataError(
            f"{path}: expected {form.n_classes} different class names, got {len(names)}"
        )
    return names


# --- is it the official archive? -----------------------------------------------------------


@dataclass(frozen=True)
class Finding:
    """What `verify` found about one file.

    Attributes
    ----------
    file : str
    official : bool
    text : str
        One line for people.
    """

    file: str
    official: bool
    text: str


def digest(path: Path, algorithm: str) -> str:
    """Return a file's checksum in hexadecimal."""
    state = hashlib.new(algorithm, usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            state.update(block)
    return state.hexdigest()


def _extracted(folder: Path, form: Format) -> dict[str, str]:
    """Return the SHA-256 of each file as extracted from the archive of the published checksum."""
    try:
        marker = json.loads((folder / MARKER).read_text("utf-8"))
        if marker["md5"] == form.md5:
            return {str(name): str(value) for name, value in marker["sha256"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass  # no marker of ours: the published checksums below decide
    return {}


def verify(form: Format, folder: Path) -> list[Finding]:
    """Compare every binary file with what is known of the official archive.

    A file counts as official if it is what our extraction took out of an archive whose
    published MD5 was checked, or if its SHA-1 is the published one.
    """
    extracted = _extracted(folder, form)
    return [
        _verify_file(folder / file, count * form.record_size, form, extracted.get(file))
        for files in form.records.values()
        for file, count in files.items()
    ]


def _verify_file(path: Path, size: int, form: Format, sha256: str | None) -> Finding:
    if not path.is_file():
        return Finding(path.name, False, "missing")
    if path.stat().st_size != size:
        got = f"{path.stat().st_size:,} bytes, the official file has {size:,}"
        return Finding(path.name, False, got)
    if sha256 is not None and digest(path, "sha256") == sha256:
        return Finding(path.name, True, "as extracted from the official archive")
    if digest(path, "sha1") == form.sha1[path.name]:
        return Finding(path.name, True, "published SHA-1")
    return Finding(path.name, False, "right size, but another checksum than the official file")


def note(folder: Path, form: Format) -> str:
    """Return what must stand beside an accuracy: nothing for the official files."""
    if all(finding.official for finding in verify(form, folder)):
        return ""
    try:
        lines = (folder / NOTE).read_text("utf-8").strip().splitlines()
    except (OSError, UnicodeDecodeError):
        lines = []
    return f"{lines[0].strip()}, {UNVERIFIED}" if lines else UNVERIFIED
