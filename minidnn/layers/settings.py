"""Checks of settings that layers share: sizes, windows, padding."""

from __future__ import annotations

from typing import Literal, TypeAlias

from minidnn.errors import ConfigError
from minidnn.kernels.windows import Pair

Padding: TypeAlias = int | Pair | Literal["same", "valid"]


def positive(**sizes: int) -> None:
    """Raise ConfigError unless every size is an int of at least 1."""
    for name, value in sizes.items():
        if not isinstance(value, int) or value < 1:
            raise ConfigError(f"{name}: expected an int >= 1, got {value!r}")


def pair(name: str, value: int | Pair, least: int) -> Pair:
    """Return (h, w) of an int or of two ints, none below `least`.

    Raises
    ------
    ConfigError
    """
    both = (value, value) if isinstance(value, int) else value
    fits = isinstance(both, tuple | list) and len(both) == 2
    if not fits or not all(isinstance(v, int) and v >= least for v in both):
        raise ConfigError(f"{name}: expected an int or (h, w), each >= {least}, got {value!r}")
    return both[0], both[1]


def padding_of(value: Padding) -> Pair | Literal["same"]:
    """Return (h, w) of zeros on both sides, or "same"; "valid" is (0, 0).

    Raises
    ------
    ConfigError
    """
    if isinstance(value, str):
        if value not in ("same", "valid"):
            raise ConfigError(f'padding: expected an int, (h, w), "same" or "valid", got {value!r}')
        return "same" if value == "same" else (0, 0)
    return pair("padding", value, 0)
