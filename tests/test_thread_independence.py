"""Results do not depend on the number of threads, and repeat bit for bit."""

from __future__ import annotations

import json
import sys

import pytest

from minidnn.kernels.ladder import load_all
from tests.processes import run
from tests.thread_bits import CANARY, THREADS


@pytest.fixture(scope="module")
def hashes() -> dict[str, list[str]]:
    done = run(sys.executable, "-m", "tests.thread_bits", env={"NUMBA_NUM_THREADS": "8"})
    result: dict[str, list[str]] = json.loads(done.stdout)
    return result


@pytest.mark.parametrize("name", sorted(load_all()))
def test_bits_are_the_same_with_1_2_3_and_8_threads(
    name: str, hashes: dict[str, list[str]]
) -> None:
    by_threads = dict(zip(THREADS, hashes[name], strict=False))
    assert len(set(hashes[name])) == 1, f"{name} differs: {by_threads}"


def test_the_comparison_sees_a_sum_that_depends_on_threads(hashes: dict[str, list[str]]) -> None:
    assert len(set(hashes[CANARY])) > 1
