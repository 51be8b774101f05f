"""What the benches share: the processes of comparisons, and the tables printed at the end."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from bench import compare_gemm, compare_ops
from bench.duel import Side
from minidnn.measure.machine import check_equal, default_threads, describe, surroundings
from minidnn.measure.tables import Table, texts

ROUNDS = 9
BATCH = 128
LAYERS = pytest.StashKey[dict[str, Any]]()
PRODUCTS = pytest.StashKey[dict[str, Any]]()


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
    """Print the tables of comparisons, and how they stand against what was asked for."""
    common = {"batch": BATCH, "rounds": ROUNDS, "blas": "NumPy's BLAS"}
    tables: list[Table] = []
    for key, module in ((LAYERS, compare_ops), (PRODUCTS, compare_gemm)):
        if found := config.stash.get(key, {}):
            verdicts = [v._asdict() for v in module.verdicts(found)]
            tables += module.tables(found, verdicts, common)
    if tables:
        packages = [name for name in ("numpy", "numba", "torch") if importlib.util.find_spec(name)]
        for text in texts(tables, describe(surroundings(default_threads(), packages))):
            terminalreporter.write_line(text)
