"""Measurements as JSON files: what they are, where they were taken, and a version to check."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from minidnn.errors import InputError
from minidnn.measure.machine import surroundings
from minidnn.threads import num_threads

VERSION = 1  # of the files; a reader refuses others
PACKAGES = ("numpy", "numba")


def envelope(kind: str, found: Mapping[str, Any]) -> dict[str, Any]:
    """Return measurements with what they are worth nothing without.

    Parameters
    ----------
    kind : str
        The command that measured, such as ``"ladder"``.
    found : mapping
        Its numbers, JSON's types only.
    """
    where = surroundings(num_threads(), PACKAGES)
    return {"minidnn": kind, "version": VERSION, "machine": where, **found}


def write(path: Path, result: Mapping[str, Any]) -> None:
    """Write a result, whole or not at all."""
    write_text(path, json.dumps(result, indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a file, whole or not at all, for others to read as the system's defaults have it."""
    part = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    try:
        with part.open("x", encoding="utf-8") as file:
            file.write(text)
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def read(path: Path, kind: str) -> dict[str, Any]:
    """Read a result of one kind.

    Raises
    ------
    InputError
        If the file is no JSON, of another kind, or of another version.
    """
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # no UTF-8, no JSON, or too long or too deep
        raise InputError(f"{path}: expected JSON of `minidnn {kind} --json`, got {error}") from None
    found = result.get("minidnn") if isinstance(result, dict) else None
    if not isinstance(result, dict) or found != kind:
        raise InputError(f"{path}: expected a result of `minidnn {kind}`, got {found!r}")
    if result.get("version") != VERSION:
        raise InputError(
            f"{path}: expected version {VERSION} of the file, got {result.get('version')!r}; "
            "measure again with this version of minidnn"
        )
    return result
