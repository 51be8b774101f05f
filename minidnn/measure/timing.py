"""Timing on a machine that others use too: many short turns, medians, no averages.

Two things are compared by letting them take turns in one process: a slow second hits both.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

Action = Callable[[], object]


class Timing(NamedTuple):
    """How long one call takes.

    Attributes
    ----------
    seconds : float
        Median over turns.
    low, high : float
        Lower and upper quartile.
    turns : int
    """

    seconds: float
    low: float
    high: float
    turns: int


def summarise(turns: list[float]) -> Timing:
    """Return the median of some turns, and their quartiles."""
    if len(turns) == 1:
        return Timing(turns[0], turns[0], turns[0], 1)
    low, middle, high = statistics.quantiles(turns, n=4, method="inclusive")
    return Timing(middle, low, high, len(turns))


def turn(action: Action, at_least: float) -> float:
    """Return the seconds of one call, averaged over as many as take `at_least` seconds."""
    calls, start = 0, time.perf_counter()
    while True:
        action()
        calls += 1
        passed = time.perf_counter() - start
        if passed >= at_least:
            return passed / calls


def take_turns(
    actions: Mapping[str, Action], *, rounds: int = 9, at_least: float = 0.01
) -> dict[str, list[float]]:
    """Time actions in turns, in this process.

    Parameters
    ----------
    actions : mapping of str to callable
        Each is called once before, uncounted: it may compile, and fills the caches.
    rounds : int
        Who goes first changes from round to round.
    at_least : float
        Seconds of one turn; short calls repeat within it.

    Returns
    -------
    dict
        Name -> seconds of one call, a number per round.
    """
    for action in actions.values():
        action()
    names = list(actions)
    found: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            found[name].append(turn(actions[name], at_least))
    return found


def timed(action: Action, *, rounds: int = 9, at_least: float = 0.01) -> Timing:
    """Time one action."""
    return summarise(take_turns({"": action}, rounds=rounds, at_least=at_least)[""])
