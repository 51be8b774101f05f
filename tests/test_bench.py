"""The benches' own promises: QuickNet's real shapes, medians of ratios, no unequal rivals."""

from __future__ import annotations

import json
import math
import re
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import (
    compare_gemm,
    compare_ops,
    gemm_cases,
    kernel_cases,
    kernel_tables,
    op_cases,
    report,
    shapes,
)
from bench.duel import Side, SideError, take_turns
from bench.judging import ASKED
from bench.recipe import decays
from minidnn import trace
from minidnn.kernels.ladder import load_all
from minidnn.measure import machine
from minidnn.measure.peaks import Peaks
from minidnn.measure.ratios import at_least, at_most, geometric_mean, interval, speed_ratio
from minidnn.measure.rungs import slow_rungs
from minidnn.measure.tables import Table
from minidnn.models import build
from tests.processes import attempt, run


def test_shapes_are_those_of_the_model_as_often() -> None:
    image = (*(shapes.IMAGE.size,) * 2, shapes.IMAGE.channels)
    graph = trace(build("quicknet"), (1, *image), training=True)
    seen: dict[str, Counter[tuple[int, ...]]] = {}
    for step in graph.steps:
        first = step.inputs[0]
        assert first is not None
        _, height, _, c_in = (*graph.values[first].shape, 0, 0)[:4]
        c_out = graph.values[step.output].shape[-1]
        shape = (height, c_in, c_out) if step.op.name == "pointwise" else (height, c_in)
        seen.setdefault(step.op.name, Counter())[shape] += 1
    listed: dict[str, Sequence[shapes.Map | shapes.Pointwise]] = {
        "conv2d": [shapes.IMAGE],
        "depthwise": shapes.DEPTHWISE,
        "pointwise": shapes.POINTWISE,
        "batchnorm": shapes.ACTIVATION,
        "prelu": shapes.ACTIVATION,
        "max_pool": shapes.MAX_POOL,
        "global_avg_pool": [shapes.GLOBAL_AVG_POOL],
    }
    for name, layers in listed.items():
        assert list(seen[name].items()) == [(tuple(at[:-1]), at.times) for at in layers], name


def test_decay_acts_where_the_library_says() -> None:
    for name in ASKED:
        for path, p in build(name).named_parameters():
            assert decays(path) == p.decay, path


# --- which cases run --------------------------------------------------------------------------


def _why(full: bool = False, classroom: bool = False) -> Any:
    return lambda case: kernel_cases.reason(case, full=full, classroom=classroom)


@pytest.mark.parametrize(
    ("ladder", "shapes_of_all", "of_stages"),
    [("relu.forward", 5, 4), ("depthwise.backward", 8, 4), ("gemm.tn", 8, 4)],
)
def test_a_run_takes_a_shape_per_stage_and_counts_the_others(
    ladder: str, shapes_of_all: int, of_stages: int
) -> None:
    cases = [case for case in kernel_cases.cases() if case.ladder == ladder]
    rungs = len(load_all()[ladder].rungs)
    assert len(cases) == rungs * (1 + 2 * shapes_of_all)
    taken, left = kernel_cases.split(cases, _why())
    slow = len(slow_rungs(ladder))
    assert left[kernel_cases.PYTHON_LOOPS] == 2 * slow * shapes_of_all
    assert left[kernel_cases.OTHER_SHAPE] == 2 * (rungs - slow) * (shapes_of_all - of_stages)
    assert left[kernel_cases.NAIVE_LOOPS] == of_stages
    assert len(taken) == rungs + 2 * (rungs - slow) * of_stages - of_stages
    assert {(c.size, c.batch) for c in taken if c.rung == "naive"} == {
        ("classroom", 2),
        ("full", 1),
    }


def test_updates_are_the_same_for_every_batch() -> None:
    cases = [case for case in kernel_cases.cases() if case.ladder == "sgd.step"]
    assert Counter((c.size, c.batch) for c in cases) == {("classroom", 2): 3, ("full", 1): 3}


def test_options_take_all_cases_or_the_smallest() -> None:
    cases = kernel_cases.cases()
    taken, left = kernel_cases.split(cases, _why(full=True))
    assert set(left) <= {kernel_cases.PYTHON_LOOPS}
    assert len(taken) + sum(left.values()) == len(cases)
    taken, left = kernel_cases.split(cases, _why(classroom=True))
    small = {case.label for case in cases if case.size == "classroom"}
    assert {case.label for case in taken} == small
    assert left == {kernel_cases.NOT_SMALL: len(cases) - len(small)}
    assert {(case.ladder, case.rung) for case in taken} == {
        (name, rung) for name, ladder in load_all().items() for rung in ladder.rungs
    }
    assert len({case.label for case in cases}) == len(cases)


def _odd_or_big(n: int) -> str | None:
    return "odd" if n % 2 else ("big" if n > 6 else None)


def test_what_is_left_out_is_said_with_its_reasons() -> None:
    taken, left = kernel_cases.split(range(10), _odd_or_big)
    assert taken == [0, 2, 4, 6]
    assert kernel_cases.left_out(left, 10) == (
        "left out 6 of 10 cases (5 odd; 1 big); --full runs what is compiled"
    )


def test_a_layer_of_each_kind_and_a_product_of_each_stage() -> None:
    taken, left = kernel_cases.split(
        op_cases.CASES, lambda case: kernel_cases.layer_reason(case, op_cases.CASES)
    )
    assert [c.kind for c in taken] == list(dict.fromkeys(c.kind for c in op_cases.CASES))
    assert sum(left.values()) == len(op_cases.CASES) - len(taken)
    products, left = kernel_cases.split(gemm_cases.cases(128), kernel_cases.product_reason)
    assert len(products) == 4 * 3
    assert sum(left.values()) == (8 + 1) * 3 - 4 * 3


def test_rates_are_operations_and_bytes_by_seconds() -> None:
    peaks = Peaks(flops=4e9, bandwidth=8e9, by_isa={}, by_set={}, threads=2)
    case = next(c for c in kernel_cases.cases() if c.ladder == "gemm.nn")
    work = case.work
    assert kernel_cases.rates("gemm.nn", work, 4_000_000, work.macs / 1e9, peaks)["GFLOP/s"] == 2.0
    found = kernel_cases.rates("gemm.nn", work, 4_000_000, 1e-3, peaks)
    assert (found["GB/s"], found["share of memory bandwidth"]) == (4.0, 0.5)
    assert found["bytes at least"] == 4_000_000
    assert found["share of peak FLOP/s"] == pytest.approx(2 * work.macs / 1e-3 / 4e9, rel=1e-3)
    relu = next(c for c in kernel_cases.cases() if c.ladder == "relu.forward")
    assert "GFLOP/s" not in kernel_cases.rates("relu.forward", relu.work, 1, 1.0, peaks)


def test_a_small_run_of_the_benches(tmp_path: Path) -> None:
    file = tmp_path / "found.json"
    only = "relu.forward and not leaky and not prelu and n1-"
    command = [
        "pytest",
        "bench",
        "-k",
        only,
        "--benchmark-json",
        str(file),
        "-p",
        "no:cacheprovider",
    ]
    said = run(sys.executable, "-m", *command).stdout
    # 5 shapes and 3 rungs; one shape is not the widest of a stage
    assert "left out 3 of 15 cases (3 another shape of its stage); --full runs" in said
    found = json.loads(file.read_text("utf-8"))["benchmarks"]
    assert len(found) == 12
    for bench in found:
        info, median = bench["extra_info"], bench["stats"]["median"]
        size, channels, batch = re.findall(r"(\d+)x\d+x(\d+)-n(\d+)", bench["group"])[0]
        least = 2 * 4 * int(size) ** 2 * int(channels) * int(batch)
        assert info["bytes at least"] == least
        assert info["GB/s"] == pytest.approx(least / median / 1e9, rel=0.01)
        assert info["share of memory bandwidth"] > 0


# --- numbers --------------------------------------------------------------------------------


def test_ratio_is_the_median_of_rounds_not_of_sides() -> None:
    ours, theirs = [2.0, 9.0, 4.0], [1.0, 3.0, 6.0]
    assert speed_ratio(ours, theirs) == (0.5, 1 / 3, 1.5)
    with pytest.raises(ValueError, match="longer"):
        speed_ratio([1.0], [1.0, 2.0])


@pytest.mark.parametrize(("n", "left_out"), [(1, 0), (5, 0), (8, 0), (9, 1), (11, 1), (12, 2)])
def test_interval_leaves_out_what_chance_rarely_would(n: int, left_out: int) -> None:
    values = list(range(n, 0, -1))
    assert interval(values) == (1 + left_out, n - left_out)


def test_means_and_verdicts() -> None:
    assert geometric_mean([2.0, 0.5, 8.0]) == pytest.approx(2.0)
    assert at_least("x", 1.0, 1.0).met
    assert not at_least("x", 1.0, 0.999).met
    assert not at_least("x", 1.0, math.nan).met
    assert at_most("x", 0.7, 0.7, "x").met
    assert not at_most("x", 0.7, 0.71, "x").met
    assert at_least("x", 1.0, 0.5, "why").got == "0.50x (why)"


def _op(kind: str, ours: float, theirs: float, times: int = 1) -> dict[str, Any]:
    seconds = {
        compare_ops.OURS: [(ours / 2, ours / 2)] * 3,
        "nchw": [(theirs, theirs)] * 3,
        "channels_last": [(theirs * 0.25, theirs * 0.75)] * 3,
    }
    return compare_ops.judge(op_cases.OpCase(kind, 3, 4, 4, times), seconds)


def test_layers_are_held_against_the_faster_layout() -> None:
    op = _op("prelu", 1.0, 3.0)
    assert op["layout"] == "channels_last"
    assert op["ratio"]["median"] == pytest.approx(3.0)
    assert op["forward_ratio"]["median"] == pytest.approx(1.5)
    assert op["backward_ratio"]["median"] == pytest.approx(4.5)


def test_layer_verdicts_name_the_worst_and_weigh_by_time() -> None:
    ops = {kind: _op(kind, 1.0, 2.0) for kind in (*op_cases.GEMM_BOUND, *op_cases.OTHERS)}
    ops["relu"] = _op("relu", 1.0, 0.01, times=0)  # not one of QuickNet's
    assert [v.met for v in compare_ops.verdicts(ops)] == [True] * 5
    ops["pointwise"] = _op("pointwise", 10.0, 9.0, times=2)
    ops["prelu"] = _op("prelu", 1.0, 0.5, times=3)
    bound, worst, mean, fused, separate = compare_ops.verdicts(ops)
    assert (bound.met, bound.got) == (False, "0.90x (pointwise)")
    assert (worst.met, worst.got) == (False, "0.50x (prelu)")
    assert mean.met  # (2**6 / 2) ** (1/7)
    assert fused.got == f"{(18 + 7 * 2) / (20 + 7):.2f}x"
    assert separate.got == f"{(18 + 1.5 + 7 * 2) / (20 + 3 + 7):.2f}x"
    assert len(compare_ops.verdicts({"prelu": ops["prelu"]})) == 2  # no total of a part


def test_product_verdicts() -> None:
    def product(median: float) -> dict[str, Any]:
        return {"ratio": {"median": median, "low": 0.1, "high": 9.0}}

    mean, worst = compare_gemm.verdicts({"a": product(0.8), "b": product(1.6)})
    assert mean.met
    assert (worst.met, worst.got) == (False, "0.80x (a)")


# --- no unequal rivals ----------------------------------------------------------------------


def test_a_layer_that_computes_something_else_is_refused() -> None:
    y = np.arange(6.0).reshape(2, 3)
    compare_ops.check_same("pool", {"y": y}, {"y": y.reshape(2, 3, 1, 1) + 1e-6})
    with pytest.raises(SystemExit, match="pool: dx is not what PyTorch computes"):
        compare_ops.check_same("pool", {"y": y, "dx": y}, {"y": y, "dx": y[::-1]})
    with pytest.raises(SystemExit, match="pool: y is not"):
        compare_ops.check_same("pool", {"y": y}, {"y": y[:1]})
    with pytest.raises(SystemExit, match="pool: y is not"):
        compare_ops.check_same("pool", {"y": y * np.nan}, {"y": y})
    with pytest.raises(SystemExit, match="gradients of"):
        compare_ops.check_same("pool", {"y": y}, {"y": y, "dx": y})


def test_sides_with_other_threads_or_cpus_are_refused() -> None:
    fair = {"threads": 2, "affinity": machine.affinity()}
    machine.check_equal(2, {"a": fair, "b": fair})
    with pytest.raises(SystemExit, match="b: threads: expected 2 as all sides, got 1"):
        machine.check_equal(2, {"a": fair, "b": {**fair, "threads": 1}})
    with pytest.raises(SystemExit, match="a: affinity"):
        machine.check_equal(2, {"a": {**fair, "affinity": [99]}, "b": fair})


def test_turns_change_who_goes_first() -> None:
    order = []

    def ask(name: str) -> int:
        order.append(name)
        return len(order)

    answers = take_turns({"a": lambda: ask("a"), "b": lambda: ask("b")}, 3)
    assert "".join(order) == "abbaab"
    assert answers == {"a": [1, 4, 5], "b": [2, 3, 6]}


def test_a_side_that_dies_is_named_with_its_last_words() -> None:
    words = r"gone: ended during 'first' \(exit 1\)(?s:.)*No module named"
    with (
        Side("gone", "bench.no_such_side", threads=1) as side,
        pytest.raises(SideError, match=words),
    ):
        side.ask("first")


def test_no_layer_of_that_name_is_an_error() -> None:
    done = attempt(sys.executable, "-m", "bench.compare_gemm", "--rounds", "0")
    assert done.returncode == 2
    assert "--rounds: expected at least 1" in done.stderr
    with pytest.raises(SystemExit, match="no layer's label holds 'prulu'"):
        compare_ops.compare("prulu", 1, 1, 1)


# --- tables, and runs in small ---------------------------------------------------------------


def test_a_table_is_the_same_in_markdown() -> None:
    table = Table("title", ["", "a"], [["x", "1"], ["short"]])
    assert table.markdown().splitlines() == [
        "**title**",
        "",
        "|  | a |",
        "| --- | ---: |",
        "| x | 1 |",
        "| short |  |",
    ]
    assert table.rich().row_count == 2


def test_the_page_keeps_what_is_not_measured_anew() -> None:
    page = "# Measured\n\n## A\n\nold\n\n### more\n\n## B\n\nkept\n"
    page = report.replace(page, "A", "## A\n\nnew \\1\n")
    assert page == "# Measured\n\n## A\n\nnew \\1\n\n## B\n\nkept\n"
    page = report.replace(page, "B", "## B\n\nlast\n")
    assert page == "# Measured\n\n## A\n\nnew \\1\n\n## B\n\nlast\n"
    assert report.replace(page, "C", "## C\n").endswith("last\n\n## C\n")


def test_a_section_holds_verdict_table_and_machine() -> None:
    verdicts = [at_least("matrix products, worst", 0.9, 1.2)._asdict()]
    ratio = {"median": 1.2, "low": 1.1, "high": 1.3}
    found = {
        "products": {"2x3x4 dX": {"minidnn": 12.0, "numpy": 10.0, "ratio": ratio}},
        "verdicts": verdicts,
        "batch": 128,
        "rounds": 9,
        "blas": "openblas 1",
        **machine.surroundings(2, ["numpy"]),
    }
    text = report.section(report.PARTS["gemm"], found)
    assert text.startswith("## Matrix products\n\n`python -m bench.compare_gemm`, 2")
    assert "| matrix products, worst | 0.90x | 1.20x | yes |" in text
    assert "| 2x3x4 dX | 12 | 10 | 1.20 (1.10 to 1.30) |" in text


def test_the_page_shows_every_rung_at_every_shape_it_was_timed_at() -> None:
    def record(rung: str, at: str, seconds: float, **rates: float) -> dict[str, Any]:
        info = {"ladder": "prelu.forward", "rung": rung, "at": at, **rates}
        return {"extra_info": info, "stats": {"median": seconds}}

    benchmarks = [
        record("naive", "6x6x5, 2", 1e-6, **{"GB/s": 2.5}),
        record("numpy", "6x6x5, 2", 2e-6, **{"GB/s": 1.25}),
        record("numpy", "28x28x64, 1", 3e-3, **{"GB/s": 12.345}),
        {"extra_info": {}, "stats": {"median": 1.0}},  # a layer's, of another part
    ]
    kernels = kernel_tables.measured(benchmarks)
    (part,) = kernel_tables.tables(kernels)
    assert part.title == "prelu.forward: ms (GB/s)"
    assert part.columns == ["shape and batch", "naive", "numpy"]
    assert part.rows == [
        ["6x6x5, 2", "0.001 (2.5)", "0.002 (1.25)"],
        ["28x28x64, 1", "", "3 (12.3)"],
    ]
    found = {"kernels": kernels, **machine.surroundings(2, ["numpy"])}
    text = report.section(report.PARTS["kernels"], found)
    assert text.startswith("## Kernels\n\n`python -m pytest bench/test_kernels.py --full -k 'not ")
    assert "| 28x28x64, 1 |  | 3 (12.3) |" in text


def test_products_are_those_of_the_forms() -> None:
    for case in gemm_cases.cases(1)[:3]:
        a, b = case.transposed(*case.draw())
        rows, columns = {
            "nn": (case.rows, case.c_out),
            "nt": (case.rows, case.c_in),
            "tn": (case.c_in, case.c_out),
        }[case.form]
        assert (a @ b).shape == (rows, columns)
    threads = machine.default_threads()
    ours, theirs = compare_gemm.start(threads)
    with ours, theirs:
        machine.check_equal(threads, {side.name: side.ask("about") for side in (ours, theirs)})
        compare_gemm.check_product(gemm_cases.GemmCase("tn", 64, 48, 32))
        found = compare_gemm.measure(gemm_cases.GemmCase("tn", 64, 48, 32), ours, theirs, 1)
    assert found["ratio"]["median"] == pytest.approx(found["minidnn"] / found["numpy"])


def test_a_small_comparison_of_layers() -> None:
    pytest.importorskip("torch")
    command = ["bench.compare_ops", "global avg", "--batch", "2", "--rounds", "1", "--json"]
    found = json.loads(run(sys.executable, "-m", *command).stdout)
    (label,) = found["ops"]
    assert label == "global avg pool 3x3x1024"
    assert found["ops"][label]["ratio"]["median"] > 0
