"""Every rung of every ladder at QuickNet's shapes, as data; and which of them a run takes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, TypeVar

from bench.gemm_cases import GemmCase
from bench.op_cases import OpCase
from bench.shapes import ACTIVATION, POINTWISE
from minidnn.kernels.ladder import load_all
from minidnn.measure.int8_work import is_8_bit, peak_of
from minidnn.measure.peaks import Peaks
from minidnn.measure.rungs import slow_rungs
from minidnn.measure.shapes import SIZES
from minidnn.measure.workloads import Workload, workloads

T = TypeVar("T")

BATCHES = (1, 128)
FEW = 2  # images of the classroom size
CHECKED = 4  # images a result is checked on, unless all are
NAIVE = "naive"
ALL_WEIGHTS = "all weights"  # label of updates, which no batch makes larger
SLOW = 0.25  # seconds of one call, above which a case is left out

# Why a case is left out.
OTHER_SHAPE = "another shape of its stage"
PYTHON_LOOPS = "Python's own loops beyond the classroom size"
NAIVE_LOOPS = f"naive loops at batch {max(BATCHES)}"
SAME_LOOPS = "the loops of int8_gemm once more"
NUMPY_CODES = f"NumPy on 8-bit codes at batch {max(BATCHES)}"
NOT_SMALL = "larger than the classroom size"
TOO_SLOW = f"over {SLOW} s a call at its rung's rate"
OTHER_LAYER = "another layer of its kind, or product of its stage"

STAGE_LABELS = {
    name: {work.label for work in works} for name, works in workloads(SIZES["stages"], 1).items()
}


class KernelCase(NamedTuple):
    """One rung, and what it is called with."""

    ladder: str
    rung: str
    size: str
    batch: int
    work: Workload

    @property
    def group(self) -> str:
        """What the rungs that are timed on the same arguments share."""
        size = f"{self.size}-" if self.size == "classroom" else ""
        return f"{self.ladder}-{size}{self.work.label}-n{self.batch}"

    @property
    def at_text(self) -> str:
        """Shape and batch, for a page."""
        return f"{self.work.label}, {self.batch}"

    @property
    def label(self) -> str:
        """Name of the test; ``-k`` finds ladder, rung, shape and batch in it."""
        return f"{self.group}-{self.rung}"

    def at(self, batch: int) -> Workload:
        """Return the same work for another number of images."""
        works = workloads(SIZES[self.size], batch)[self.ladder]
        return next(work for work in works if work.label == self.work.label)


def cases() -> list[KernelCase]:
    """Return all, those on the same arguments one after the other."""
    found = []
    for size, batches in (("classroom", (FEW,)), ("full", BATCHES)):
        for batch in batches:
            for name, works in workloads(SIZES[size], batch).items():
                rungs = load_all()[name].rungs
                found += [
                    KernelCase(name, rung, size, batch, work)
                    for work in works
                    for rung in rungs
                    if work.label != ALL_WEIGHTS or batch != max(BATCHES)
                ]
    return found


def reason(case: KernelCase, *, full: bool, classroom: bool) -> str | None:
    """Return why a run leaves a case out, None if it takes it."""
    if case.size == "classroom":
        return None
    if classroom:
        return NOT_SMALL
    if case.rung in slow_rungs(case.ladder):
        return PYTHON_LOOPS
    if full:
        return None
    if case.work.label not in STAGE_LABELS[case.ladder]:
        return OTHER_SHAPE
    if case.rung == NAIVE and case.batch > 1:
        return NAIVE_LOOPS
    if case.ladder == "int8_pointwise.forward":
        return SAME_LOOPS
    if is_8_bit(case.ladder) and case.rung == "numpy" and case.batch > 1:
        return NUMPY_CODES
    return None


def layer_reason(case: OpCase, cases: Iterable[OpCase]) -> str | None:
    """Return why a run leaves a layer out: it takes one of each kind, of the second stage."""
    size = ACTIVATION[2].size
    kind = [other for other in cases if other.kind == case.kind]
    chosen = next((other for other in kind if other.size == size), kind[0])
    return None if case == chosen else OTHER_LAYER


def product_reason(case: GemmCase) -> str | None:
    """Return why a run leaves a product out: it takes the widest layer of each stage."""
    stages = {(p.size**2, p.c_in, p.c_out) for p in POINTWISE[1::2]}
    layer = (case.rows // max(BATCHES), case.c_in, case.c_out)
    return None if layer in stages else OTHER_LAYER


def split(items: Iterable[T], why: Callable[[T], str | None]) -> tuple[list[T], Counter[str]]:
    """Return what a run takes, and how many it leaves out for which reason."""
    taken, left = [], Counter[str]()
    for item in items:
        if found := why(item):
            left[found] += 1
        else:
            taken.append(item)
    return taken, left


def left_out(left: Counter[str], cases: int) -> str:
    """Return the sentence on what a run left out of so many cases."""
    reasons = "; ".join(f"{count} {why}" for why, count in left.most_common())
    return (
        f"left out {sum(left.values())} of {cases} cases ({reasons}); --full runs what is compiled"
    )


def rates(
    ladder: str, work: Workload, least_bytes: int, seconds: float, peaks: Peaks
) -> dict[str, Any]:
    """Return what a time means: operations and bytes per second, and shares of the peaks.

    Bytes are those that a call moves at least. In a cache they move faster than from memory,
    so a share of the memory's bandwidth may exceed 1.
    """
    flops, moved = 2 * work.macs / seconds, least_bytes / seconds
    found: dict[str, Any] = {"bytes at least": least_bytes}
    if work.macs:
        found["GFLOP/s"] = _digits(flops / 1e9)
        found["share of peak FLOP/s"] = _digits(flops / peak_of(ladder, peaks.flops))
    found["GB/s"] = _digits(moved / 1e9)
    found["share of memory bandwidth"] = _digits(moved / peaks.bandwidth)
    return found


def _digits(value: float) -> float:
    return float(f"{value:.4g}")
