"""Walk through a JSON file that anybody may have edited: every step says what it expected."""

from __future__ import annotations

import math
from typing import Any

from minidnn.errors import InputError


class Saved:
    """A value inside a file, and where it stands.

    Parameters
    ----------
    value : object
        As `json` reads it.
    where : str
        File, then keys: for the message.
    """

    def __init__(self, value: Any, where: str) -> None:
        self.value = value
        self.where = where

    def wrong(self, expected: str) -> InputError:
        """Return an error that names the place, what was expected and what stands there."""
        text = repr(self.value)
        short = text if len(text) <= 60 else f"{text[:57]}..."
        return InputError(f"{self.where}: expected {expected}, got {short}")

    def __getitem__(self, key: str) -> Saved:
        """Return what an object holds under a key."""
        if not isinstance(self.value, dict):
            raise self.wrong(f"an object with {key!r}")
        if key not in self.value:
            raise InputError(f"{self.where}: {key!r} is missing; measure again")
        return Saved(self.value[key], f"{self.where}: {key}")

    def each(self, length: int | None = None) -> list[Saved]:
        """Return the entries of a list that is not empty."""
        if not isinstance(self.value, list) or not self.value:
            raise self.wrong("a list")
        if length not in (None, len(self.value)):
            raise self.wrong(f"{length} entries")
        return [Saved(one, f"{self.where}[{i}]") for i, one in enumerate(self.value)]

    def number(self) -> float:
        """Return a finite number above 0."""
        value = self.value
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            raise self.wrong("a number")
        if not (math.isfinite(value) and value > 0):
            raise self.wrong("a finite number above 0")
        return value

    def count(self) -> int:
        """Return a whole number above 0."""
        if not isinstance(self.value, int):
            raise self.wrong("a whole number")
        return int(self.number())

    def flag(self) -> bool:
        """Return true or false."""
        if not isinstance(self.value, bool):
            raise self.wrong("true or false")
        return self.value

    def text(self) -> str:
        """Return a text that is not empty."""
        if not isinstance(self.value, str) or not self.value:
            raise self.wrong("a text")
        return self.value
