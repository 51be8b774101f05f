"""Hold matrix products against NumPy's: the same result first, then the speed, and a table.

minidnn's own time stands in the report; the ratio, from processes that take turns (see
`bench.compare_gemm`), in its `extra_info` and in the tables printed last.
"""

from __future__ import annotations

from typing import Any

import pytest

from bench.compare_gemm import check_product, measure
from bench.conftest import BATCH
from bench.duel import Side
from bench.gemm_cases import GemmCase, cases

SMALL, LARGE = cases(1), cases(BATCH)


@pytest.mark.parametrize(
    ("small", "large"), list(zip(SMALL, LARGE, strict=True)), ids=[case.label for case in LARGE]
)
def test_product(
    small: GemmCase,
    large: GemmCase,
    numpy_rivals: tuple[Side, Side],
    products: dict[str, Any],
    rounds: int,
    benchmark: Any,
) -> None:
    check_product(small)
    case = large if benchmark.enabled else small
    a, b = case.draw()
    benchmark.pedantic(lambda: case.ladder(a, b), rounds=5, iterations=1, warmup_rounds=1)
    if benchmark.enabled:
        products[case.label] = measure(case, *numpy_rivals, rounds)
        benchmark.extra_info |= products[case.label]
