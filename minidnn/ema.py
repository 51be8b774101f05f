"""Averages of weights over training, to evaluate with: `EMA`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np

from minidnn.module import Module
from minidnn.optim import at_least, check_state
from minidnn.tensor import Array


class EMA:
    """Exponential moving average of a model's parameters and float buffers.

    ``average = decay * average + (1 - decay) * value`` at every `update()`.

    Parameters
    ----------
    model : Module
    decay : float
        In [0, 1).
    warmup : bool
        Use ``min(decay, (1 + t) / (10 + t))`` at update t = 0, 1, ..., so that the average
        forgets the initial weights quickly.
    """

    def __init__(self, model: Module, decay: float, warmup: bool = False) -> None:
        self.model, self.warmup = model, warmup
        self.decay = at_least("decay", decay, 0, below=1)
        self.updates = 0
        self.average = {name: value.copy() for name, value in self._values().items()}

    def _values(self) -> dict[str, Array]:
        return {name: a for name, a in self.model.state_dict().items() if a.dtype.kind == "f"}

    def update(self) -> None:
        """Take the model's present values into the average."""
        decay = self.decay
        if self.warmup:
            decay = min(decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        for name, value in self._values().items():
            average = self.average[name]
            average += (value - average) * average.dtype.type(1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Put the averages into the model inside the block, e.g. to evaluate them."""
        values = self._values()
        kept = {name: value.copy() for name, value in values.items()}
        for name, value in values.items():
            value[...] = self.average[name]
        try:
            yield
        finally:
            for name, value in values.items():
                value[...] = kept[name]

    def state_dict(self) -> dict[str, Array]:
        """Return name -> array: the averages (no copies) under the model's names, and `updates`."""
        return {**self.average, "updates": np.asarray(self.updates, np.int64)}

    def load_state_dict(self, state: Mapping[str, Array]) -> None:
        """Copy averages in; all or nothing.

        Raises
        ------
        StateDictError
            If names, shapes or dtypes do not fit the model.
        """
        check_state(self.state_dict(), state, f"the EMA of {type(self.model).__name__}")
        for name, array in self.average.items():
            array[...] = state[name]
        self.updates = int(state["updates"])
