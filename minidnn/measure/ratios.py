"""What is believed of repeated measurements: medians of ratios, their intervals, verdicts."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from typing import NamedTuple

CHANCE = 0.05  # that a median lies outside its interval; the range of all rounds if they are few


class Ratio(NamedTuple):
    """Median over rounds, and the interval it lies in."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f} to {self.high:.2f})"


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Return between which of the values their median lies with 95 % confidence.

    By order statistics, so no distribution is assumed: as many values are left out at each end
    as fair coins would rarely leave there. Fewer than 9 values leave none out.
    """
    ordered, n = sorted(values), len(values)
    out, tail = 0, 1 / 2**n
    while out < (n - 1) // 2 and 2 * tail <= CHANCE:
        out += 1
        tail += math.comb(n, out) / 2**n
    first = max(out - 1, 0)
    return ordered[first], ordered[n - 1 - first]


def speed_ratio(ours: Sequence[float], theirs: Sequence[float]) -> Ratio:
    """Return how many times faster ours is: seconds of theirs / ours, round by round."""
    ratios = [b / a for a, b in zip(ours, theirs, strict=True)]
    return Ratio(statistics.median(ratios), *interval(ratios))


def geometric_mean(values: Iterable[float]) -> float:
    """Return the mean of ratios: 2 and 1/2 cancel out."""
    logs = [math.log(v) for v in values]
    return math.exp(sum(logs) / len(logs))


class Verdict(NamedTuple):
    """A number that was asked for, and the one that was measured."""

    what: str
    asked: str
    got: str
    met: bool


def at_least(what: str, asked: float, got: float, note: str = "") -> Verdict:
    """Judge a ratio that should be large."""
    return Verdict(what, f"{asked:.2f}x", f"{got:.2f}x{note and f' ({note})'}", got >= asked)


def at_most(what: str, asked: float, got: float, unit: str) -> Verdict:
    """Judge a number that should be small."""
    return Verdict(what, f"{asked:.3g}{unit}", f"{got:.3g}{unit}", got <= asked)
