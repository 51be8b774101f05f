"""Ladders: the rungs of one op, from the naive loops to the fastest, behind one call.

>>> forward = Ladder("prelu.forward", naive=..., numpy=..., fused=...)
>>> forward(x, slope)            # the rung chosen for this CPU and shape
>>> forward["naive"](x, slope)   # one rung
>>> with using("naive"):         # every ladder, for the classroom
...     forward(x, slope)
"""

from __future__ import annotations

import difflib
import functools
import importlib
import pkgutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Generic, NamedTuple, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

REGISTRY: dict[str, Ladder[..., Any]] = {}
_forced: ContextVar[str | None] = ContextVar("forced_rung", default=None)


class Rule(NamedTuple):
    """Take `rung` where `when(*args, **settings)` holds."""

    rung: str
    when: Callable[..., bool]
    why: str


# The one table that picks a rung other than a ladder's last: first rule that holds wins.
# It looks at shapes and CPU features only, never at a clock, so a run repeats bit for bit.
TABLE: dict[str, tuple[Rule, ...]] = {}


# Names of rungs that are loops nobody compiles.
NOT_COMPILED = frozenset({"python"})


class Ladder(Generic[P, R]):
    """The rungs of one op, slowest first, all with one signature.

    Parameters
    ----------
    name : str
        Kernel file and direction, such as ``"prelu.forward"``; the key in `REGISTRY`.
    check : callable, optional
        Called with the arguments before any rung; raises where they do not fit.
    **rungs : callable
        At least ``naive`` (plain jitted loops) and ``numpy`` (needs no compiler).

    Attributes
    ----------
    slow : frozenset of str
        Rungs that Python itself runs, a microsecond per product: to read, and to time at
        classroom sizes alone.
    """

    def __init__(
        self, name: str, *, check: Callable[P, object] | None = None, **rungs: Callable[P, R]
    ) -> None:
        self.name = name
        self.check = check
        self.rungs = rungs
        self.slow = frozenset(rungs) & NOT_COMPILED
        self.fastest = list(rungs)[-1]
        REGISTRY[name] = self

    def __repr__(self) -> str:
        return f"Ladder({self.name!r}: {' -> '.join(self.rungs)})"

    def __getitem__(self, rung: str) -> Callable[P, R]:
        """Return one rung, with the ladder's check before it: the loops trust their arguments."""
        try:
            function = self.rungs[rung]
        except KeyError:
            raise KeyError(unknown(f"rung of {self.name}", rung, self.rungs)) from None

        @functools.wraps(function)
        def checked(*args: P.args, **kwargs: P.kwargs) -> R:
            if self.check is not None:
                self.check(*args, **kwargs)
            return function(*args, **kwargs)

        return checked

    def choose(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """Return the name of the rung that a call with these arguments would run."""
        forced = _forced.get()
        if forced in self.rungs:
            return forced
        for rule in TABLE.get(self.name, ()):
            if rule.when(*args, **kwargs):
                return rule.rung
        return self.fastest

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        if self.check is not None:
            self.check(*args, **kwargs)
        return self.rungs[self.choose(*args, **kwargs)](*args, **kwargs)


def rung_of(ladder: Ladder[P, R], rung: str | None) -> Callable[P, R]:
    """Return a rung of a ladder, or what the ladder itself would choose."""
    return ladder if rung is None else ladder[rung]


def unknown(what: str, name: str, known: Any) -> str:
    """Return an error text that names the nearest known name."""
    near = difflib.get_close_matches(name, list(known), n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"unknown {what}: {name!r}{hint} (known: {', '.join(known)})"


@contextmanager
def using(rung: str) -> Iterator[None]:
    """Run `rung` of every ladder that has it inside the block; the others run their own choice.

    Raises
    ------
    KeyError
        If no ladder has a rung of that name.
    """
    names = dict.fromkeys(name for ladder in load_all().values() for name in ladder.rungs)
    if rung not in names:
        raise KeyError(unknown("rung", rung, names))
    token = _forced.set(rung)
    try:
        yield
    finally:
        _forced.reset(token)


def load_all() -> dict[str, Ladder[..., Any]]:
    """Import every kernel file and return the full `REGISTRY`."""
    package = __name__.rpartition(".")[0]
    for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
        if not module.name.startswith("_"):
            importlib.import_module(f"{package}.{module.name}")
    return REGISTRY
