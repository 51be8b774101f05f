"""Learning rates as pure functions of the step: ``rate = cosine(0.1, total_steps=900)``.

Each function here returns a ``Callable[[int], float]``; nothing is remembered between calls,
so a resumed run needs only its step number: ``optimizer.lr = rate(step)``.

Warm-up: with ``warmup_steps = k`` the first k steps use ``f(0) * (t + 1) / (k + 1)``, and
the schedule proper, ``f(t - k)``, starts at step k. `total_steps` counts the warm-up too;
after the last step a schedule keeps its final value.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

from minidnn.errors import ConfigError

Schedule: TypeAlias = Callable[[int], float]

__all__ = [
    "Schedule",
    "constant",
    "cosine",
    "keras_decay",
    "linear",
    "one_cycle",
    "polynomial",
    "step_decay",
]


def _check(**values: float) -> None:
    for name, value in values.items():
        if not (math.isfinite(value) and value >= 0):
            raise ConfigError(
                f"schedule: {name}: expected a finite number of at least 0, got {value!r}"
            )


def _length(total_steps: int, warmup_steps: int) -> int:
    """Return how many steps are left for the schedule proper."""
    if total_steps <= warmup_steps:
        raise ConfigError(
            f"schedule: total_steps: expected more than warmup_steps ({warmup_steps}), "
            f"got {total_steps}"
        )
    return total_steps - warmup_steps


def _warmed(f: Schedule, warmup_steps: int) -> Schedule:
    """Put a linear warm-up before `f`."""
    _check(warmup_steps=warmup_steps)

    def rate(step: int) -> float:
        if step < 0:
            raise ConfigError(f"schedule: step: expected at least 0, got {step}")
        if step < warmup_steps:
            return f(0) * (step + 1) / (warmup_steps + 1)
        return f(step - warmup_steps)

    return rate


def constant(lr: float, *, warmup_steps: int = 0) -> Schedule:
    """``lr`` at every step."""
    _check(lr=lr)
    return _warmed(lambda t: lr, warmup_steps)


def step_decay(
    lr: float, *, every: int | Sequence[int], gamma: float = 0.1, warmup_steps: int = 0
) -> Schedule:
    """``lr * gamma**k`` after k drops.

    Parameters
    ----------
    lr : float
    every : int or sequence of int
        An int drops after each so many steps (``k = t // every``); a sequence names the steps
        at which the rate drops, counted like `t` from the end of the warm-up.
    gamma : float
        Factor of one drop.
    warmup_steps : int
    """
    _check(lr=lr, gamma=gamma)
    if isinstance(every, int):
        if every < 1:
            raise ConfigError(f"schedule: every: expected at least 1, got {every}")
        period = every
        return _warmed(lambda t: lr * gamma ** (t // period), warmup_steps)
    drops = tuple(every)
    return _warmed(lambda t: lr * gamma ** sum(t >= drop for drop in drops), warmup_steps)


def cosine(lr: float, *, total_steps: int, final: float = 0.0, warmup_steps: int = 0) -> Schedule:
    """``final + (lr - final) * (1 + cos(pi * t / T)) / 2`` (Loshchilov & Hutter 2017, eq. 5).

    T is `total_steps` less the warm-up; at ``t >= T`` the rate is `final`.
    """
    _check(lr=lr, final=final)
    length = _length(total_steps, warmup_steps)

    def f(t: int) -> float:
        return final + (lr - final) * (1 + math.cos(math.pi * min(t / length, 1))) / 2

    return _warmed(f, warmup_steps)


def polynomial(
    lr: float, *, total_steps: int, power: float = 2.0, final: float = 0.0, warmup_steps: int = 0
) -> Schedule:
    """``final + (lr - final) * (1 - t / T)**power``; T is `total_steps` less the warm-up."""
    _check(lr=lr, final=final, power=power)
    length = _length(total_steps, warmup_steps)

    def f(t: int) -> float:
        return float(final + (lr - final) * (1 - min(t / length, 1)) ** power)

    return _warmed(f, warmup_steps)


def linear(lr: float, *, total_steps: int, final: float = 0.0, warmup_steps: int = 0) -> Schedule:
    """``lr + (final - lr) * t / T``: `polynomial` with power 1."""
    return polynomial(
        lr, total_steps=total_steps, power=1.0, final=final, warmup_steps=warmup_steps
    )


def one_cycle(
    lr: float,
    *,
    total_steps: int,
    rise: float = 0.3,
    div_factor: float = 25.0,
    final_div_factor: float = 1e4,
    anneal: str = "cos",
) -> Schedule:
    """Up from ``lr / div_factor`` to ``lr``, then down to ``lr / div_factor / final_div_factor``.

    Smith & Topin 2018, as `torch.optim.lr_scheduler.OneCycleLR`: step 0 has the first rate,
    step ``rise * total_steps - 1`` the peak, step ``total_steps - 1`` the last. The rise is its
    warm-up.

    Parameters
    ----------
    lr : float
        The peak.
    total_steps : int
    rise : float
        Share of the steps spent rising, above 0 and below 1.
    div_factor, final_div_factor : float
    anneal : {"cos", "linear"}
        Half a cosine wave, or a straight line.
    """
    _check(lr=lr)
    peak = rise * total_steps - 1
    if not (0 < rise < 1 and 0 < peak < total_steps - 1):
        raise ConfigError(
            "schedule: one_cycle: expected 0 < rise < 1 and at least one step on either side of "
            f"the peak, got rise={rise}, total_steps={total_steps}"
        )
    if div_factor <= 0 or final_div_factor <= 0:
        raise ConfigError(
            "schedule: one_cycle: expected factors above 0, "
            f"got div_factor={div_factor}, final_div_factor={final_div_factor}"
        )
    if anneal not in ("cos", "linear"):
        raise ConfigError(f"schedule: anneal: expected 'cos' or 'linear', got {anneal!r}")
    first = lr / div_factor
    last = first / final_div_factor

    def between(start: float, end: float, share: float) -> float:
        if anneal == "cos":
            share = (1 - math.cos(math.pi * share)) / 2
        return start + (end - start) * share

    def f(t: int) -> float:
        if t <= peak:
            return between(first, lr, t / peak)
        return between(lr, last, min((t - peak) / (total_steps - 1 - peak), 1))

    return _warmed(f, 0)


def keras_decay(lr: float, *, decay: float, warmup_steps: int = 0) -> Schedule:
    """``lr / (1 + decay * t)``: the `decay` argument of Keras 1's SGD, t counting updates."""
    _check(lr=lr, decay=decay)
    return _warmed(lambda t: lr / (1 + decay * t), warmup_steps)
