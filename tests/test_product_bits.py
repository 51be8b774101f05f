"""Products on BLAS give the same bits with any number of threads, at every batch size."""

from __future__ import annotations

import json
import sys

from tests.processes import run
from tests.product_bits import BATCHES, LAYERS


def test_products_have_the_same_bits_with_1_2_3_and_8_threads() -> None:
    done = run(sys.executable, "-m", "tests.product_bits", env={"NUMBA_NUM_THREADS": "8"})
    hashes: dict[str, list[str]] = json.loads(done.stdout)
    assert len(hashes) == len(BATCHES) * (3 * len(LAYERS) + 3)
    assert {name: h for name, h in hashes.items() if len(set(h)) != 1} == {}
