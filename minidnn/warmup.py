"""Compile what a step needs before its first run, on all cores at once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from minidnn.ema import EMA
from minidnn.kernels.ahead import Call, compile_all, listed
from minidnn.module import Module
from minidnn.optim import Optimizer

# What `state_dict` and `load_state_dict` save and put back.
Stateful = Module | Optimizer | EMA


def warm_up(
    step: Callable[[], object],
    *restore: Stateful,
    processes: int | None = None,
    tell: Callable[[Call, float], None] = lambda call, seconds: None,
) -> int:
    """Compile every kernel that `step` will call, several at a time.

    Calls `step` once with the parallel loops left out, to see which it would run. So it
    computes nonsense: it must not check its loss, and what it changes is to be named in
    `restore`. Kernels that are in the disk cache already cost nothing; without a call of
    this function each is compiled at its first use, one after another.

    Parameters
    ----------
    step : callable
        A training step or a forward pass.
    *restore : Module, Optimizer, EMA
        Whatever `step` changes; gets its state back afterwards, and its gradients cleared.
    processes : int, optional
        How many helper processes compile; by default one per thread, at most 8.
    tell : callable
        Called with each kernel compiled and its seconds, from another thread.

    Returns
    -------
    int
        How many kernels are listed.

    Examples
    --------
    >>> def step():
    ...     optimizer.zero_grad()
    ...     minidnn.cross_entropy(model(minidnn.Tensor(x)), labels).backward()
    ...     optimizer.step()
    >>> minidnn.warm_up(step, model, optimizer)
    27
    """
    states = [{name: np.array(a) for name, a in it.state_dict().items()} for it in restore]
    try:
        with listed() as calls, np.errstate(all="ignore"):
            step()
    finally:
        for it, state in zip(restore, states, strict=True):
            it.load_state_dict(state)
            if isinstance(it, Module | Optimizer):
                it.zero_grad()
    compile_all(calls, processes, tell)
    return len(calls)
