"""Watch Numba compile: which kernels, how long, and which came from the disk cache."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

from numba.core import event

from minidnn.kernels.jit import DISPATCHERS

# Numba calls itself typed, but these functions are not.
_register: Any = event.register
_unregister: Any = event.unregister


class Compiled(NamedTuple):
    """One function made ready: seconds include those of the functions it calls."""

    name: str
    seconds: float


def _name(dispatcher: Any) -> str:
    function = dispatcher.py_func
    return f"{function.__module__.partition('kernels.')[2]}.{function.__name__}"


class Watch(event.Listener):
    """Collects what is compiled inside a ``with`` block.

    Parameters
    ----------
    tell : callable, optional
        Called with each function that a caller waited for.

    Attributes
    ----------
    done : list of Compiled
    """

    def __init__(self, tell: Callable[[Compiled], None] = lambda compiled: None) -> None:
        self.tell = tell
        self.done: list[Compiled] = []
        self._open: list[float] = []

    def on_start(self, event: Any) -> None:
        """Hear from Numba that a compilation begins."""
        self._open.append(time.perf_counter())

    def on_end(self, event: Any) -> None:
        """Hear that it ended."""
        start = self._open.pop()
        if self._open:  # part of the time of the function that calls it
            return
        compiled = Compiled(_name(event.data["dispatcher"]), time.perf_counter() - start)
        self.done.append(compiled)
        self.tell(compiled)

    def helped(self, name: str, seconds: float) -> None:
        """Hear that a helper process compiled a kernel."""
        compiled = Compiled(name, seconds)
        self.done.append(compiled)
        self.tell(compiled)

    @property
    def seconds(self) -> float:
        """Time spent compiling so far, that of helper processes added up."""
        return sum(compiled.seconds for compiled in self.done)

    def __enter__(self) -> Watch:
        _register("numba:compile", self)
        return self

    def __exit__(self, *_: object) -> None:
        _unregister("numba:compile", self)


def from_cache() -> list[str]:
    """Return the functions that this process has loaded from the disk cache."""
    return sorted(_name(d) for d in DISPATCHERS if sum(d.stats.cache_hits.values()))
