"""Watch Numba compile: which kernels, how long, and which came from the disk cache."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from numba.core import event

# Numba calls itself typed but leaves the names of this module out.
_event: Any = event


class Compiled(NamedTuple):
    """One function made ready: seconds include those of the functions it calls."""

    name: str
    seconds: float
    cached: bool


class Watch(_event.Listener):  # type: ignore[misc]  # numba's class has no types
    """Collects what is compiled inside a ``with`` block.

    Parameters
    ----------
    tell : callable, optional
        Called with each function that a kernel's caller waited for.
    """

    def __init__(self, tell: Callable[[Compiled], None] = lambda compiled: None) -> None:
        self.tell = tell
        self.done: list[Compiled] = []
        self._open: list[Any] = []

    def on_start(self, event: Any) -> None:
        """Note that a function's compilation begins."""
        self._open.append(event)

    def on_end(self, event: Any) -> None:
        """Note that it ended; those inside another are part of that one's time."""
        start = self._open.pop()
        if self._open:
            return
        dispatcher = event.data["dispatcher"]
        function = dispatcher.py_func
        name = f"{function.__module__.rpartition('.')[2]}.{function.__name__}"
        cached = sum(dispatcher.stats.cache_hits.values()) > 0
        compiled = Compiled(name, event.timestamp - start.timestamp, cached)
        self.done.append(compiled)
        self.tell(compiled)

    @property
    def seconds(self) -> float:
        """Time spent so far."""
        return sum(compiled.seconds for compiled in self.done)

    def __enter__(self) -> Watch:
        _event.register("numba:compile", self)
        return self

    def __exit__(self, *_: object) -> None:
        _event.unregister("numba:compile", self)
