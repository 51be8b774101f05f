"""What a plan does, step by step: what was joined, and its time beside the one expected."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from minidnn.kernels import memory
from minidnn.kernels.halves_tile import PRODUCTS
from minidnn.kernels.jit import max_threads
from minidnn.kernels.plan.fields import PAIRED
from minidnn.kernels.plan.run import run, state_of
from minidnn.measure import timing
from minidnn.measure.int8_work import PER_MULTIPLY_ADD, peak_of
from minidnn.measure.peaks import Peaks
from minidnn.measure.tables import Table
from minidnn.plan.compiler import Layout, Plan
from minidnn.plan.program import Step


@dataclass(frozen=True)
class Row:
    """One step.

    Attributes
    ----------
    layers : list of str
    what : str
        Its loops, in words.
    shape : tuple of int
        Of one image's output.
    macs : int
        Of the batch.
    weights_bytes, moved_bytes : int
        Weights; and with them inputs read once and outputs written once, of the batch.
    expected : float
        Seconds that this machine's peaks allow.
    seconds : float or None
        Measured, all threads on this step; None for ops that Python runs.
    """

    layers: list[str]
    what: str
    shape: tuple[int, ...]
    macs: int
    weights_bytes: int
    moved_bytes: int
    expected: float
    seconds: float | None


@dataclass(frozen=True)
class Explained:
    """A plan's steps at a number of images, and the whole.

    Attributes
    ----------
    batch : int
    rows : list of Row
    memory_bytes : int
        Of all values, which share it.
    values_bytes : int
        What they would take apart.
    seconds : float
        Of a whole call.
    """

    batch: int
    rows: list[Row]
    memory_bytes: int
    values_bytes: int
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """Return plain numbers, strings, lists and dicts, for JSON."""
        return asdict(self)


def words(step: Step, by_halves: bool) -> str:
    """Say what a step does."""
    if step.op is not None:
        return f"{step.op.name}, by its own function"
    told = []
    kernel = "x".join(map(str, step.kernel))
    kind = step.kind.removeprefix("int8_")
    if kind == "convolve":
        rows = "product" if step.is_pointwise else f"windows {kernel}, product"
        told.append("depthwise 3x3, product" if "taps" in step.arrays else rows)
        if by_halves:
            told[-1] += " by halves"
        if step.groups > 1:
            told.append(f"{step.groups} groups")
    else:
        names = {"largest": f"max {kernel}", "average": f"mean {kernel}", "copy": "copy"}
        told.append(names.get(kind, kind))
    told += [word for name, word in (("bias", "bias"), ("slope", "PReLU")) if name in step.arrays]
    if step.pool > 1:
        told.append(f"max {step.pool}x{step.pool}")
    return ", ".join(["8 bits", *told] if kind != step.kind else told)


def explain(plan: Plan, batch: int, peaks: Peaks) -> Explained:
    """Time a plan's steps one by one, and the whole.

    Parameters
    ----------
    plan : Plan
    batch : int
    peaks : Peaks
        This machine's.
    """
    layout, rows = plan.shared_layout(batch), []
    seconds = _seconds(plan, layout, batch)
    for step, (first, last), time in zip(plan.program.steps, plan.rows, seconds, strict=True):
        by_halves = bool(layout.table[first:last, PAIRED].any())
        products = 2 * step.macs * batch * (PRODUCTS / 8 if by_halves else 1)
        pool = step.pool
        oh, ow, _ = step.out_shape
        shape = (oh // pool, ow // pool, step.channels)
        weights = sum(
            (4 if a.dtype.kind == "f" else a.itemsize) * a.size for a in step.arrays.values()
        )
        values = [(v, plan.program.sizes[v]) for v in step.inputs if v is not None]
        values.append((step.output, shape[0] * shape[1] * step.out_shape[2]))
        moved = weights + batch * sum(plan.program.item(v) * size for v, size in values)
        rate = peak_of(step.kind, peaks.flops)
        ideal = max(products / rate, moved / peaks.level(moved).bandwidth)
        rows.append(
            Row(
                step.labels,
                words(step, by_halves),
                shape,
                step.macs * batch,
                weights,
                moved,
                ideal,
                time,
            )
        )
    x = _images(plan, batch)
    whole = timing.timed(lambda: plan(x), rounds=9).seconds
    apart = 4 * batch * sum(plan.program.sizes)
    return Explained(batch, rows, plan.layout(batch).size, apart, whole)


def _images(plan: Plan, batch: int) -> Any:
    shape = (batch, *plan.input_shape)
    return np.random.default_rng(3).standard_normal(shape, np.float32)


def _seconds(plan: Plan, layout: Layout, batch: int) -> list[float | None]:
    """Time each step's rows of the table by themselves, all threads on each."""
    room = memory.zeros((layout.size,), np.uint8)
    scratch = memory.empty((max_threads(), plan.scratch), np.float32)
    found: list[float | None] = []
    for first, last in plan.rows:
        if first == last:
            found.append(None)
            continue
        regions = plan.shared_regions(first, last, batch, layout.threads)
        state = np.empty(state_of(regions), np.int64)

        def call(regions: Any = regions, state: Any = state) -> None:
            run(
                layout.table, plan.weights, room, regions, layout.segments, batch, layout.threads,
                0, 0, scratch, state,
            )  # fmt: skip

        found.append(timing.timed(call, rounds=9).seconds)
    return found


COLUMNS = (
    "layers",
    "what",
    "output",
    "10^6 MACs",
    "weights kB",
    "MB",
    "expected us",
    "us",
    "of it",
)


def table(found: Explained) -> Table:
    """Return a row per step."""
    rows = []
    for row in found.rows:
        rows.append(
            [
                _joined(row.layers),
                row.what,
                "x".join(map(str, row.shape)),
                f"{row.macs / 1e6:,.4g}" if row.macs else "",
                f"{row.weights_bytes / 1e3:,.4g}" if row.weights_bytes else "",
                f"{row.moved_bytes / 1e6:.3g}",
                f"{1e6 * row.expected:,.4g}",
                "" if row.seconds is None else f"{1e6 * row.seconds:,.4g}",
                "" if row.seconds is None else f"{row.expected / row.seconds:.0%}",
            ]
        )
    return Table(f"plan, batch {found.batch}", COLUMNS, rows, prose=("what",))


def _joined(layers: Sequence[str]) -> str:
    """Return paths in short: what they have in common once."""
    first, *rest = layers
    common = first.rpartition(".")[0]
    short = [layer.removeprefix(f"{common}.") if common else layer for layer in rest]
    return "+".join([first, *short])


def texts(found: Explained) -> list[str]:
    """Return what stands below the table."""
    return [
        "expected: what this machine's peaks allow, two operations per MAC (on bytes "
        f"{PER_MULTIPLY_ADD} times as many;\nby halves seven eighths of them), or the bytes of "
        "weights, inputs and outputs. Steps are\ntimed one by one, with all threads on "
        "each; with many images each thread takes its own through all\nof them.",
        f"{1e3 * found.seconds:.4g} ms a call, {found.batch / found.seconds:,.4g} images/s; values "
        f"share {found.memory_bytes / 1e6:.3g} MB of memory, and would take "
        f"{found.values_bytes / 1e6:.3g} MB apart",
    ]
