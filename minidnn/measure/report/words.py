"""Numbers as people read them."""

from __future__ import annotations


def number(value: float, digits: int = 3) -> str:
    """Return a number with so many digits that count, never in the form 1.5e+03."""
    if abs(value) >= 10 ** (digits - 1):
        return f"{value:,.0f}"
    return f"{value:.{digits}g}"


def ms(seconds: float, digits: int = 3) -> str:
    """Return seconds as milliseconds, without the unit."""
    return number(1e3 * seconds, digits)


def share(value: float) -> str:
    """Return a share in percent: no digits behind the point from 10 % on, one below."""
    return (
        f"{value:.0%}" if value >= 0.0995 else f"{value:.1%}" if value >= 0.00095 else "under 0.1%"
    )
