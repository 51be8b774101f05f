"""The benches' own promises: QuickNet's real shapes, medians of ratios, no unequal rivals."""

from __future__ import annotations

import statistics

import pytest

from bench import shapes
from bench.duel import compare
from bench.peers import check_same
from minidnn import trace
from minidnn.models import build


def test_shapes_are_those_of_the_model() -> None:
    graph = trace(build("quicknet"), (1, *(shapes.IMAGE.size,) * 2, shapes.IMAGE.channels))
    seen: dict[str, list[tuple[int, ...]]] = {}
    for step in graph.steps:
        first = step.inputs[0]
        assert first is not None
        _, height, _, c_in = (*graph.values[first].shape, 0, 0)[:4]
        c_out = graph.values[step.output].shape[-1]
        shape = (height, c_in, c_out) if step.op.name == "pointwise" else (height, c_in)
        if shape not in seen.setdefault(step.op.name, []):
            seen[step.op.name].append(shape)
    assert seen["conv2d"] == [tuple(shapes.IMAGE)]
    assert seen["depthwise"] == [tuple(m) for m in shapes.DEPTHWISE]
    assert seen["pointwise"] == [tuple(p) for p in shapes.POINTWISE]
    assert seen["prelu"] == [tuple(m) for m in shapes.ACTIVATION]
    assert seen["max_pool"] == [tuple(m) for m in shapes.MAX_POOL]
    assert seen["global_avg_pool"] == [tuple(shapes.GLOBAL_AVG_POOL)]


def test_ratio_is_the_median_of_rounds_not_of_sides() -> None:
    ours, theirs = [2.0, 9.0, 4.0], [1.0, 3.0, 4.0]
    result = compare(ours, theirs)
    assert (result.ours, result.theirs) == (4.0, 3.0)
    assert result.ratio == statistics.median([2.0, 3.0, 1.0])
    assert (result.low, result.high) == (1.0, 3.0)


def test_a_rival_that_trains_another_network_is_refused() -> None:
    check_same([2.3, 2.1], [2.3001, 2.1001])
    with pytest.raises(SystemExit, match=r"not train the same network.* in step 1"):
        check_same([2.3, 2.1], [2.3, 2.2])
    with pytest.raises(SystemExit, match="step 0"):
        check_same([float("nan")], [2.3])
