"""Checkpoints: all state of a run in one safetensors file that is either whole or not there.

The arrays are ordinary tensors of the file; everything else is JSON in the header's metadata.
No pickle: opening a foreign file can fail, but cannot run code.

A file is written under another name, brought to disk, and renamed; the one it replaces stays
as ``last.previous.safetensors``. So whenever a process is killed, one good file is there.
"""

from __future__ import annotations

import contextlib
import json
import os
import warnings
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from minidnn.errors import CheckpointError

Array = NDArray[Any]

FORMAT = "minidnn checkpoint 1"
SUFFIX = ".safetensors"
_BLOCK = 1 << 20


class CheckpointWarning(UserWarning):
    """A damaged checkpoint was passed over for an older good one."""


@dataclass
class Checkpoint:
    """What a file holds.

    Attributes
    ----------
    arrays : dict of str to ndarray
    info : dict
        Anything JSON can hold; floats come back bit for bit.
    path : Path or None
        The file it was read from.
    """

    arrays: dict[str, Array]
    info: dict[str, Any]
    path: Path | None = None

    def part(self, prefix: str) -> dict[str, Array]:
        """Return the arrays whose names start with ``prefix.``, without it."""
        start = prefix + "."
        return {n.removeprefix(start): a for n, a in self.arrays.items() if n.startswith(start)}


def _checksum(arrays: Mapping[str, Array], info: str) -> str:
    """CRC-32 of names, dtypes, shapes, values and the JSON: safetensors itself has none."""
    crc = zlib.crc32(info.encode())
    for name in sorted(arrays):
        array = arrays[name]
        crc = zlib.crc32(f"{name} {array.dtype} {array.shape}".encode(), crc)
        crc = zlib.crc32(array.reshape(-1).view(np.uint8).data, crc)
    return f"{crc:08x}"


def save(
    path: Path, arrays: Mapping[str, Array], info: Mapping[str, Any], *, mark: str = FORMAT
) -> None:
    """Write a checkpoint; the one that was there before stays as ``*.previous.safetensors``.

    Parameters
    ----------
    path : Path
        Of a checkpoint it ends in ``.safetensors``; its folder exists.
    arrays : mapping of str to ndarray
    info : mapping
        Anything JSON can hold.
    mark : str
        What kind of file it is; other kinds than checkpoints keep no file before.

    Raises
    ------
    CheckpointError
        If the disk is full or cannot be written to; the earlier file is then untouched.
    """
    # safetensors writes garbage for arrays that are not C-contiguous.
    whole = {name: np.require(array, requirements="C") for name, array in arrays.items()}
    text = json.dumps(info)
    metadata = {"format": mark, "info": text, "crc32": _checksum(whole, text)}
    data = safetensors.numpy.save(whole, metadata)
    temporary = path.with_name(path.name + ".writing")
    try:
        with temporary.open("wb") as file:
            for start in range(0, len(data), _BLOCK):
                file.write(data[start : start + _BLOCK])
            file.flush()
            os.fsync(file.fileno())
        if path.exists() and mark == FORMAT:
            path.replace(previous(path))
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        kept = "; the checkpoint before it is intact" if exists(path) else ""
        raise CheckpointError(
            f"{path}: cannot write {len(data) / 1e6:.1f} MB: {error.strerror or error}{kept}"
        ) from error


def _sync_folder(folder: Path) -> None:
    """Bring a rename to disk, where the system can open folders (Windows cannot)."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def previous(path: Path) -> Path:
    """Return where `save` keeps the file that it replaces."""
    return path.with_name(path.name.removesuffix(SUFFIX) + ".previous" + SUFFIX)


def exists(path: Path) -> bool:
    """Return whether the checkpoint or the one before it is there."""
    return path.exists() or previous(path).exists()


def read(path: Path, mark: str = FORMAT) -> Checkpoint:
    """Read one file of a kind.

    Raises
    ------
    CheckpointError
        If the file is missing, truncated, damaged, or of another kind or version.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot read: {error.strerror or error}") from error
    metadata = _metadata(path, data)
    if metadata.get("format") != mark:
        raise CheckpointError(
            f"{path}: expected a file marked {mark!r}, got {metadata.get('format')!r}: "
            "safetensors, but of another kind, or not of this version of minidnn"
        )
    try:
        arrays = safetensors.numpy.load(data)
        text = metadata["info"]
        intact = _checksum(arrays, text) == metadata["crc32"]
        info = json.loads(text)
    except (safetensors.SafetensorError, KeyError, ValueError, TypeError) as error:
        raise CheckpointError(f"{path}: damaged: {error}") from error
    if not intact:
        raise CheckpointError(f"{path}: damaged: its checksum does not fit its contents")
    return Checkpoint(arrays, info, path)


def _metadata(path: Path, data: bytes) -> dict[str, Any]:
    """Return the header's free text, which safetensors reads from files but not from bytes."""
    size = int.from_bytes(data[:8], "little")
    try:
        header = json.loads(data[8 : 8 + size])
        metadata = header.get("__metadata__", {})
        return dict(metadata)
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        raise CheckpointError(
            f"{path}: not a safetensors file, or truncated ({len(data)} bytes)"
        ) from error


def read_latest(path: Path) -> Checkpoint:
    """Read a checkpoint, or where it is damaged the one before it, with a warning.

    Raises
    ------
    CheckpointError
        If neither can be read.
    """
    try:
        return read(path)
    except CheckpointError as error:
        older = previous(path)
        if not older.exists():
            raise
        checkpoint = read(older)
        warnings.warn(f"{error}; using {older} instead", CheckpointWarning, stacklevel=2)
        return checkpoint
