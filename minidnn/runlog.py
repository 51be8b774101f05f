"""The log of a run: one JSON object per line, only ever appended to, in ``RUN/log.jsonl``.

A checkpoint notes how many bytes the log had. Resuming cuts the log back to that position,
so that a killed and resumed run has the log of a run that was never killed, in every field
but those in `TIMES`.
"""

from __future__ import annotations

import json
import os
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
        self._file = path.open("wb" if position is None else "ab")
        if position is not None:
            size = self._file.tell()
            if size < position:
                self._file.close()
                raise CheckpointError(
                    f"{path}: expected at least {position} bytes, as the checkpoint says, got "
                    f"{size}; the log was cut or replaced. To go on without the lost lines, "
                    "start a new run with --init-from"
                )
            self._file.truncate(position)
            self._file.seek(position)

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
