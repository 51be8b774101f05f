"""Numbers as people read them."""

from __future__ import annotations

import math


def number(value: float, digits: int = 3) -> str:
    """Return a number with so many digits that count, never with an exponent."""
    if abs(value) >= 10 ** (digits - 1):
        return f"{value:,.0f}"
    if 0 < abs(value) < 1e-4:  # where g would write an exponent
        return f"{value:.{digits - 1 - math.floor(math.log10(abs(value)))}f}"
    return f"{value:.{digits}g}"


def ms(seconds: float, digits: int = 3) -> str:
    """Return seconds as milliseconds, without the unit."""
    return number(1e3 * seconds, digits)


def share(value: float) -> str:
    """Return a share in percent: no digits behind the point from 10 % on, one below."""
    return f"{value:.0%}" if value >= 0.0995 else f"{value:.1%}" if value >= 0.00095 else "<0.1%"
