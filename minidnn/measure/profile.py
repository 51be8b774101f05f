"""Where the time of a step goes: a profile by layer, forward and backward.

>>> with profiling() as profile:
...     for _ in range(5):
...         with profile.step(), profile.section("forward"):
...             model(x)
>>> print(profile.result().table().markdown())

While a profile is on, it runs the ops of this thread itself and puts a clock around each
function and each backward closure; otherwise the engine asks one ``is None`` per op.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FunctionType
from typing import Any, NamedTuple

import numpy as np

from minidnn.chain import Chain
from minidnn.errors import GraphError
from minidnn.kernels import memory
from minidnn.layers import joined
from minidnn.measure.profiled import BACKWARD, FORWARD, WAYS, Layer, Pass, Result
from minidnn.measure.trace import Span, Trace
from minidnn.module import Module, calling
from minidnn.tensor import Array, Backward, Op, running

Clock = Callable[[], float]
# An op with multiply-accumulates is a product of two arrays, and the gradient of each of the
# two costs as many again.
FACTORS = 2


# --- finding it ---------------------------------------------------------------------------


class _Place(NamedTuple):
    """What a row of the table stands for; `model` tells models apart that were run in turn."""

    model: int
    label: str
    kind: str
    paths: tuple[str, ...]


@dataclass
class _Frame:
    """Something being timed, and what the things inside it took."""

    start: float
    counts: memory.Counts
    inner_seconds: float = 0.0
    inner_counts: memory.Counts = field(default_factory=lambda: memory.Counts(0, 0, 0))


class _Spent(NamedTuple):
    start: float
    seconds: float
    own_seconds: float
    own_counts: memory.Counts


@dataclass
class _Step:
    """Sums of one step, in the order of first calls."""

    layers: dict[tuple[_Place, str], Pass] = field(default_factory=dict)
    sections: dict[str, Pass] = field(default_factory=dict)
    spans: list[Span] = field(default_factory=list)
    seconds: float = 0.0


class Profile:
    """Times what this thread runs inside of `step`; made by `profiling`."""

    def __init__(self, clock: Clock, trace: Trace | None) -> None:
        self._clock, self._trace = clock, trace
        self._frames: list[_Frame] = []
        self._roots: list[tuple[Module, dict[int, str]]] = []
        self._places: dict[tuple[Module | None, Module | None, Op], _Place] = {}
        self._steps: list[_Step] = []
        self._step: _Step | None = None

    # --- what a caller says ---------------------------------------------------------------

    @contextmanager
    def step(self) -> Iterator[None]:
        """Measure the block as one step; a step that ends in an exception does not count."""
        if self._step is not None:
            raise GraphError("profile.step(): a step is open already; steps do not nest")
        self._step = step = _Step()
        frame = self._enter()
        try:
            yield
            spent = self._leave(frame)
        finally:
            self._step = None
            self._frames.clear()
        step.seconds = spent.seconds
        self._steps.append(step)
        if self._trace is not None:
            name = f"step {len(self._steps)}"
            self._trace.add([Span(name, "step", spent.start, spent.seconds, {}), *step.spans])
        step.spans = []

    @contextmanager
    def section(self, name: str) -> Iterator[None]:
        """Name a part of a step; its row of the table is what the layers inside leave of it."""
        step = self._step
        if step is None:
            yield
            return
        frame = self._enter()
        yield
        spent = self._leave(frame)
        step.sections[name] = _added(step.sections.get(name), spent)
        self._span(step, name, "section", spent)

    def result(self) -> Result:
        """Return the medians of the steps so far.

        Raises
        ------
        GraphError
            If there was none.
        """
        if not self._steps:
            raise GraphError("profile: expected at least one `with profile.step():`, got none")
        steps = self._steps
        places = dict.fromkeys(place for step in steps for place, _ in step.layers)
        names = dict.fromkeys(name for step in steps for name in step.sections)

        def layer(place: _Place, way: str) -> Pass:
            return _median([step.layers.get((place, way), Pass()) for step in steps])

        return Result(
            steps=len(steps),
            step_seconds=statistics.median(step.seconds for step in steps),
            layers=[
                Layer(place.label, place.kind, place.paths, *(layer(place, w) for w in WAYS))
                for place in places
            ],
            sections={
                name: _median([step.sections.get(name, Pass()) for step in steps]) for name in names
            },
        )

    # --- what the engine asks -------------------------------------------------------------

    def run(
        self, op: Op, arrays: list[Array | None], settings: dict[str, Any]
    ) -> tuple[Array, Backward]:
        """Run an op's function with a clock around it, and around its closures later on."""
        step = self._step
        if step is None:
            return op.function(*arrays, **settings)
        place = self._place(op)
        frame = self._enter()
        y, backward = op.function(*arrays, **settings)
        spent = self._leave(frame)
        macs = int(op.macs(y, *arrays, **settings)) if op.macs else 0
        given = {id(a): a for a in arrays if a is not None}.values()
        view = any(np.may_share_memory(y, a) for a in given)
        moved = 0 if view else sum(a.nbytes for a in given) + y.nbytes
        self._note(step, place, FORWARD, op, spent, macs, moved)
        if backward is None:
            return y, None
        if isinstance(backward, tuple):
            return y, tuple(
                self._timed(closure, place, op, macs if i < FACTORS else 0)
                for i, closure in enumerate(backward)
            )
        return y, self._timed(backward, place, op, FACTORS * macs)

    def _timed(
        self, closure: Callable[[Array], Any], place: _Place, op: Op, macs: int
    ) -> Callable[[Array], Any]:
        def timed(dy: Array) -> Any:
            step = self._step
            if step is None:
                return closure(dy)
            read = dy.nbytes + _saved_bytes(closure)
            frame = self._enter()
            result = closure(dy)
            spent = self._leave(frame)
            grads = result if isinstance(result, tuple) else (result,)
            written = sum(
                grad.nbytes
                for grad in grads
                if grad is not None and not np.may_share_memory(grad, dy)
            )
            self._note(step, place, BACKWARD, op, spent, macs, read + written if written else 0)
            return result

        return timed

    # --- keeping count --------------------------------------------------------------------

    def _enter(self) -> _Frame:
        frame = _Frame(0.0, memory.counts())
        self._frames.append(frame)
        frame.start = self._clock()
        return frame

    def _leave(self, frame: _Frame) -> _Spent:
        end, now = self._clock(), memory.counts()
        while self._frames.pop() is not frame:  # what an exception left behind
            pass
        seconds, counts = end - frame.start, _minus(now, frame.counts)
        if self._frames:
            outer = self._frames[-1]
            outer.inner_seconds += seconds
            outer.inner_counts = _plus(outer.inner_counts, counts)
        own = _minus(counts, frame.inner_counts)
        return _Spent(frame.start, seconds, seconds - frame.inner_seconds, own)

    def _note(
        self, step: _Step, place: _Place, way: str, op: Op, spent: _Spent, macs: int, moved: int
    ) -> None:
        step.layers[place, way] = _added(step.layers.get((place, way)), spent, macs, moved)
        details = {"op": op.name, "macs": macs, "bytes": moved, **spent.own_counts._asdict()}
        self._span(step, place.label, way, spent, details)

    def _span(
        self,
        step: _Step,
        name: str,
        category: str,
        spent: _Spent,
        details: dict[str, Any] | None = None,
    ) -> None:
        if self._trace is not None:
            step.spans.append(Span(name, category, spent.start, spent.seconds, details or {}))

    def _place(self, op: Op) -> _Place:
        stack = calling()
        key = (stack[0], stack[-1], op) if stack else (None, None, op)
        if key not in self._places:
            self._places[key] = self._find_place(op, stack)
        return self._places[key]

    def _find_place(self, op: Op, stack: tuple[Module, ...]) -> _Place:
        """Say whose op this is: the innermost module's, or all those of its chain."""
        if not stack:
            return _Place(-1, op.name, op.name, ())
        number, paths = self._paths(stack[0])
        module, chain = stack[-1], stack[-1]._chain
        if isinstance(chain, Chain) and op.function.__module__ == joined.__name__:
            names = tuple(paths.get(id(m), type(m).__name__) for m in chain.modules)
            return _Place(number, _label(names), op.name, names)
        path = paths.get(id(module), type(module).__name__)
        if any(True for _ in module.named_children()):  # a model's own op, not a layer's
            return _Place(number, f"{path}:{op.name}" if path else op.name, op.name, (path,))
        return _Place(number, path or type(module).__name__, type(module).__name__, (path,))

    def _paths(self, root: Module) -> tuple[int, dict[int, str]]:
        for number, (known, paths) in enumerate(self._roots):
            if known is root:
                return number, paths
        paths = {id(module): path for path, module in root.named_modules()}
        self._roots.append((root, paths))
        return len(self._roots) - 1, paths


@contextmanager
def profiling(*, clock: Clock = time.perf_counter, trace: Trace | None = None) -> Iterator[Profile]:
    """Profile what this thread runs inside of the block.

    Parameters
    ----------
    clock : callable
        Returns seconds.
    trace : Trace, optional
        Collects every single span too, for a timeline.

    Yields
    ------
    Profile
        Counts what happens inside ``with profile.step():``.
    """
    profile = Profile(clock, trace)
    with running(profile.run):
        yield profile


def _plus(a: memory.Counts, b: memory.Counts) -> memory.Counts:
    return memory.Counts(*(x + y for x, y in zip(a, b, strict=True)))


def _minus(a: memory.Counts, b: memory.Counts) -> memory.Counts:
    return memory.Counts(*(x - y for x, y in zip(a, b, strict=True)))


def _added(so_far: Pass | None, spent: _Spent, macs: int = 0, moved: int = 0) -> Pass:
    more = Pass(spent.own_seconds, 1, macs, moved, *spent.own_counts)
    if so_far is None:
        return more
    seconds, *counts = (a + b for a, b in zip(so_far, more, strict=True))
    return Pass(seconds, *map(int, counts))


def _median(passes: list[Pass]) -> Pass:
    seconds, *counts = zip(*passes, strict=True)
    return Pass(statistics.median(seconds), *map(statistics.median_low, counts))


def _label(paths: Sequence[str]) -> str:
    """Join paths by +, each cut down to where it leaves the one before."""
    parts, before = list(paths[:1]), paths[0].split(".")
    for path in paths[1:]:
        names = path.split(".")
        common = 0
        while common < min(len(names), len(before)) - 1 and names[common] == before[common]:
            common += 1
        parts.append(".".join(names[common:]))
        before = names
    return "+".join(parts)


def _saved_bytes(closure: Callable[..., Any]) -> int:
    """Return the bytes of the arrays that a backward closure holds: the closure is the state."""
    seen: dict[int, Any] = {}
    pending: list[Any] = [closure]
    while pending:
        held = pending.pop()
        if id(held) in seen:
            continue
        seen[id(held)] = held
        if isinstance(held, list | tuple):
            pending.extend(held)
        elif isinstance(held, dict):
            pending.extend(held.values())
        elif isinstance(held, FunctionType):
            pending.extend(cell.cell_contents for cell in held.__closure__ or ())
    return sum(held.nbytes for held in seen.values() if isinstance(held, np.ndarray))
