"""Hold layers against PyTorch's: the same result first, then the speed, and a table at the end.

minidnn's own time stands in the report; the ratio, from processes that take turns (see
`bench.compare_ops`), in its `extra_info` and in the tables printed last.
"""

from __future__ import annotations

from typing import Any

import pytest

from bench.compare_ops import CHECK_BATCH, check_layer, measure
from bench.conftest import BATCH
from bench.duel import Side
from bench.op_cases import CASES, OpCase
from bench.ops_minidnn import Passes


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.label)
def test_layer(
    case: OpCase,
    torch_rivals: tuple[Side, Side],
    layers: dict[str, Any],
    rounds: int,
    benchmark: Any,
) -> None:
    check_layer(case, *torch_rivals)
    passes = Passes(case, BATCH if benchmark.enabled else CHECK_BATCH)
    benchmark.pedantic(
        lambda: passes.backward(passes.forward()), rounds=5, iterations=1, warmup_rounds=1
    )
    if benchmark.enabled:
        layers[case.label] = measure(case, *torch_rivals, BATCH, rounds)
        benchmark.extra_info |= layers[case.label]
