"""The log of a run: one JSON object per line, only ever appended to, in ``RUN/log.jsonl``.

A checkpoint notes how many bytes the log had. Resuming cuts the log back to that position,
so that a killed and resumed run has the log of a run that was never killed, in every field
but those in `TIMES`.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from minidnn.errors import CheckpointError

# The only fields that may differ between two runs of one configuration.
TIMES = frozenset({"time", "seconds", "images_per_second"})


class RunLog:
    """An append-only JSON Lines file.

    Parameters
    ----------
    path : Path
        The file; made if missing.
    position : int, optional
        Cut the file back to this many bytes before appending; without it, start afresh.
    """

    def __init__(self, path: Path, position: int | None = None) -> None:
        self.path = path
        self._file = path.open("ab")
        try:
            self._claim()
            size = self._file.tell()
            if position is not None and size < position:
                raise CheckpointError(
                    f"{path}: expected at least {position} bytes, as the checkpoint says, got "
                    f"{size}; the log was cut or replaced. To go on without the lost lines, "
                    "start a new run with --init-from"
                )
        except CheckpointError:
            self._file.close()
            raise
        self._file.truncate(position or 0)

    def _claim(self) -> None:
        """Make sure that no other process writes to this run, where the system can tell."""
        if sys.platform == "win32":
            return
        import fcntl

        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise CheckpointError(
                f"{self.path.parent}: another process is training in this folder; "
                "wait for it, or choose another with --out"
            ) from error

    @property
    def position(self) -> int:
        """Number of bytes written so far, all of them on disk."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._file.tell()

    def append(self, record: dict[str, Any]) -> None:
        """Write one record as one line, and hand it to the operating system at once."""
        # allow_nan: a diverged loss is still a number to note, and Python reads it back.
        self._file.write(json.dumps(record).encode() + b"\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file; the log cannot be appended to any more."""
        self._file.close()


def read_log(path: Path) -> list[dict[str, Any]]:
    """Return all records; a line that a kill cut short at the end is left out."""
    if not path.exists():
        return []
    text = path.read_bytes()
    return [json.loads(line) for line in text[: text.rfind(b"\n") + 1].splitlines()]
