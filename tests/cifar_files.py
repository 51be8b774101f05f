"""Small data sets in CIFAR's binary layout, made by the tests themselves."""

from __future__ import annotations

import io
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from minidnn.data.cifar import FORMATS, Format


def record_bytes(images: Any, labels: Any, coarse: Any = None) -> bytes:
    """Return images (N, H, W, C) and labels as records, pixel by pixel as the format says."""
    parts = []
    for i, image in enumerate(images):
        if coarse is not None:
            parts.append(bytes([coarse[i]]))
        parts.append(bytes([labels[i]]))
        parts.extend(image[:, :, channel].tobytes() for channel in range(3))
    return b"".join(parts)


def make_folder(root: Path, n: int = 6) -> Path:
    """Write a CIFAR-10 folder of `n` images a file; the k-th image has label k % 10."""
    folder = root / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(1)
    for name in (*FORMATS["cifar10"].records["train"], *FORMATS["cifar10"].records["test"]):
        images = rng.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8)
        (folder / name).write_bytes(record_bytes(images, np.arange(n) % 10))
    (folder / "batches.meta.txt").write_text("\n".join("abcdefghij") + "\n\n")
    return folder


def small_format(n: int = 6) -> Format:
    """Return CIFAR-10's format with `n` images a file, so that a small archive has all of them."""
    official = FORMATS["cifar10"]
    records = {split: dict.fromkeys(files, n) for split, files in official.records.items()}
    return replace(official, records=records)


def make_archive(folder: Path, extra: dict[str, bytes] | None = None) -> bytes:
    """Return a .tar.gz of a folder, as the official one is built, and of extra members."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        tar.add(folder, arcname=folder.name)
        for name, data in (extra or {}).items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return stream.getvalue()
