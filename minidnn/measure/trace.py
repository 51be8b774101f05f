"""Spans of time as a file for Perfetto (ui.perfetto.dev) or chrome://tracing, of limited size.

The format is Chrome's "Trace Event Format": a JSON object whose ``traceEvents`` are complete
events (``"ph": "X"``) with a start and a duration in microseconds.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from minidnn.errors import InputError

MB = 10**6
LEAST = 2000  # bytes: the frame of the file, and an event or two
PROCESS, THREAD = 1, 1


class Span(NamedTuple):
    """Something that took time.

    Attributes
    ----------
    name, category : str
    start, seconds : float
        On one clock.
    details : mapping
        Numbers and texts to show beside it.
    """

    name: str
    category: str
    start: float
    seconds: float
    details: Mapping[str, Any]


class Trace:
    """Spans, kept as the JSON they are written as.

    Parameters
    ----------
    title : str
        What was measured.
    limit : int
        Bytes of the whole file at the most. The first span that does not fit ends the
        recording: later ones are counted only, so that the file has no holes.

    Attributes
    ----------
    left_out : int
        Spans that were not recorded.

    Raises
    ------
    InputError
        If the limit leaves no room for anything.
    """

    def __init__(self, title: str, limit: int = 10 * MB) -> None:
        if limit < LEAST:
            raise InputError(
                f"trace limit: expected at least {LEAST / MB:g} MB, got {limit / MB:g} MB"
            )
        self.title, self.limit, self.left_out = title, limit, 0
        self._events: list[str] = []
        self._origin: float | None = None
        self._end = 0.0
        names = {"process_name": title, "thread_name": "main"}
        for kind, name in names.items():
            self._events.append(_json({**_on(kind, "M", 0), "args": {"name": name}}))
        # Room for the longest end there can be.
        self._size = len(self._written(10**15, 1e15))

    def add(self, spans: list[Span]) -> None:
        """Record spans that are over, in the order in which they began, outer ones first."""
        for span in sorted(spans, key=lambda span: (span.start, -span.seconds)):
            if self._origin is None:
                self._origin = span.start
            # Both ends are rounded alike, so that an inner span never leaves its outer one.
            start = round((span.start - self._origin) * 1e6, 3)
            end = round((span.start + span.seconds - self._origin) * 1e6, 3)
            event = _on(span.name, "X", start) | {"cat": span.category}
            event |= {"dur": round(end - start, 3), "args": dict(span.details)}
            text = _json(event)
            if self.left_out or self._size + len(text) + 2 > self.limit:
                self.left_out += 1
                continue
            self._events.append(text)
            self._size += len(text) + 2  # with a comma and a new line
            self._end = max(self._end, end)

    @property
    def note(self) -> str | None:
        """What is missing, in one sentence; None where nothing is."""
        return self._note(self.left_out) if self.left_out else None

    def _note(self, left_out: int) -> str:
        return (
            f"stopped recording at the limit of {self.limit / MB:g} MB: "
            f"{left_out} events left out; raise --trace-limit or take fewer steps"
        )

    def _written(self, left_out: int, end: float) -> str:
        events, note = list(self._events), self._note(left_out) if left_out else None
        if note is not None:
            cut = _on(note, "i", end) | {"s": "g", "args": {"left_out": left_out}}
            events.append(_json(cut))
        about = {"title": self.title, "truncated": bool(left_out), "left_out": left_out}
        if note is not None:
            about["note"] = note
        body = ",\n".join(events)
        return (
            f'{{"displayTimeUnit": "ms",\n"otherData": {_json(about)},\n'
            f'"traceEvents": [\n{body}\n]}}\n'
        )

    def text(self) -> str:
        """Return the file's text: JSON, however much was left out."""
        return self._written(self.left_out, self._end)

    def write(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name)
        try:
            with os.fdopen(handle, "w", encoding="ascii", newline="\n") as file:
                file.write(self.text())
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink()
            raise


def _json(value: object) -> str:
    return json.dumps(value)  # ASCII, so that characters are bytes


def _on(name: str, phase: str, start: float) -> dict[str, Any]:
    return {"name": name, "ph": phase, "ts": start, "pid": PROCESS, "tid": THREAD}
