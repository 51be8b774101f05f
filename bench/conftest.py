"""What the benches share: which cases run, the processes of comparisons, tables at the end."""

from __future__ import annotations

import importlib.util
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import pytest

from bench import compare_gemm, compare_ops
from bench.duel import Side
from bench.gemm_cases import GemmCase
from bench.kernel_cases import (
    TOO_SLOW,
    KernelCase,
    layer_reason,
    left_out,
    product_reason,
    reason,
    split,
)
from bench.op_cases import CASES, OpCase
from minidnn.measure.machine import check_equal, default_threads, describe, surroundings
from minidnn.measure.peaks import Peaks, known_peaks
from minidnn.measure.tables import Table, texts

ROUNDS, FEW_ROUNDS = 9, 5
BATCH = 128
LAYERS = pytest.StashKey[dict[str, Any]]()
PRODUCTS = pytest.StashKey[dict[str, Any]]()
LEFT_OUT = pytest.StashKey[Counter[str]]()
ALL = pytest.StashKey[int]()
NOTES = pytest.StashKey[list[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare which cases run."""
    group = parser.getgroup("minidnn")
    group.addoption("--full", action="store_true", help="bench all shapes, batches and rungs")
    group.addoption(
        "--classroom", action="store_true", help="bench kernels at the smallest size alone"
    )


def is_full(config: pytest.Config) -> bool:
    """Tell whether all cases are wanted."""
    return bool(config.getoption("--full"))


@pytest.hookimpl(trylast=True)  # what -k left
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what would take a run beyond five minutes, and count it."""
    config.stash[ALL] = len(items)
    taken, config.stash[LEFT_OUT] = split(items, lambda item: _reason(item, config))
    kept = set(taken)
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = taken


def _reason(item: pytest.Item, config: pytest.Config) -> str | None:
    """Return why an item is left out, None if it runs."""
    values = getattr(item, "callspec", None)
    case = values and values.params.get("case", values.params.get("large"))
    full, classroom = is_full(config), bool(config.getoption("--classroom"))
    if isinstance(case, KernelCase):
        return reason(case, full=full, classroom=classroom)
    if full or config.getoption("--benchmark-disable"):  # comparing is what takes time
        return None
    if isinstance(case, OpCase):
        return layer_reason(case, CASES)
    return product_reason(case) if isinstance(case, GemmCase) else None


def _started(start: Callable[[int], tuple[Side, Side]]) -> Iterator[tuple[Side, Side]]:
    ours, theirs = start(default_threads())
    with ours, theirs:
        check_equal(default_threads(), {s.name: s.ask("about") for s in (ours, theirs)})
        yield ours, theirs


@pytest.fixture(scope="session")
def torch_rivals() -> Iterator[tuple[Side, Side]]:
    """minidnn and PyTorch, each in a process of its own."""
    if importlib.util.find_spec("torch") is None:
        pytest.skip("needs torch: python -m pip install '.[peers]'")
    yield from _started(compare_ops.start)


@pytest.fixture(scope="session")
def numpy_rivals() -> Iterator[tuple[Side, Side]]:
    """minidnn and NumPy, each in a process of its own."""
    yield from _started(compare_gemm.start)


@pytest.fixture(scope="session")
def rounds(pytestconfig: pytest.Config) -> int:
    """Return the turns of each side of a comparison."""
    return ROUNDS if is_full(pytestconfig) else FEW_ROUNDS


@pytest.fixture(scope="session")
def peaks(pytestconfig: pytest.Config) -> Callable[[], Peaks]:
    """Return what gives the machine's peaks: measured at most once, and only if asked for."""

    @lru_cache(maxsize=1)
    def found() -> Peaks:
        # Peaks of a busy machine are worth a note at the end, not the failure of every case.
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            known = known_peaks()
        pytestconfig.stash[NOTES] = [str(warning.message) for warning in said]
        return known

    return found


@pytest.fixture(scope="session")
def layers(pytestconfig: pytest.Config) -> dict[str, Any]:
    """Collect what was measured of layers, for the tables."""
    return pytestconfig.stash.setdefault(LAYERS, {})


@pytest.fixture(scope="session")
def products(pytestconfig: pytest.Config) -> dict[str, Any]:
    """Collect what was measured of matrix products, for the tables."""
    return pytestconfig.stash.setdefault(PRODUCTS, {})


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print what was left out, the tables of comparisons, and whether they are as asked for."""
    nothing = Counter[str]()
    left = config.stash.get(LEFT_OUT, nothing)
    skipped = [r for r in terminalreporter.stats.get("skipped", []) if TOO_SLOW in str(r.longrepr)]
    if skipped:
        left[TOO_SLOW] = len(skipped)
    for note in config.stash.get(NOTES, []):
        terminalreporter.write_line(note)
    if left:
        terminalreporter.write_line(left_out(left, config.stash[ALL]))
    rounds = ROUNDS if is_full(config) else FEW_ROUNDS
    common = {"batch": BATCH, "rounds": rounds, "blas": "NumPy's BLAS"}
    tables: list[Table] = []
    for key, module in ((LAYERS, compare_ops), (PRODUCTS, compare_gemm)):
        if found := config.stash.get(key, {}):
            verdicts = [v._asdict() for v in module.verdicts(found)]
            tables += module.tables(found, verdicts, common)
    if tables:
        packages = [name for name in ("numpy", "numba", "torch") if importlib.util.find_spec(name)]
        for text in texts(tables, describe(surroundings(default_threads(), packages))):
            terminalreporter.write_line(text)
