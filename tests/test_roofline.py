"""The roofline: closed forms with made-up peaks, fake timers, and the command's own input."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from minidnn.cli import main
from minidnn.kernels.ladder import load_all
from minidnn.measure import ladders, peaks, roofline, timing
from minidnn.measure.int8_work import PER_MULTIPLY_ADD
from minidnn.measure.peaks import Level, Peaks
from minidnn.measure.roofline import Placed, place

LEVELS = (
    Level("L1", 1000, 100, 400.0, 100.0),
    Level("memory", math.inf, 10_000, 10.0, 8.0),
)
PEAKS = peaks.assemble(1, {"avx2": 1000.0}, LEVELS)


def test_a_call_with_few_operations_per_byte_is_bound_by_memory() -> None:
    found = place("op", "fast", "shape", (10_000, 2000), 500.0, PEAKS)
    assert (found.flops, found.intensity, found.place) == (20_000, 10.0, "memory")
    assert (found.compute_seconds, found.memory_seconds) == (20.0, 200.0)
    assert (found.bound, found.ideal_seconds, found.share) == ("memory", 200.0, 0.4)
    assert (found.rate, found.bytes_rate) == (40.0, 4.0)
    # The same in the usual words: the roof is bandwidth * intensity.
    assert found.rate / min(1000.0, 10.0 * found.intensity) == pytest.approx(found.share)


def test_a_call_with_many_is_bound_by_the_peak() -> None:
    found = place("op", "fast", "shape", (1_000_000, 2000), 4000.0, PEAKS)
    assert (found.bound, found.ideal_seconds, found.share) == ("compute", 2000.0, 0.5)
    assert found.rate / min(1000.0, 10.0 * found.intensity) == pytest.approx(found.share)


def test_products_of_bytes_have_a_roof_of_their_own() -> None:
    given: Any = ("fast", "shape", (1_000_000, 2000), 4000.0, PEAKS)
    floats, codes = place("gemm.nn", *given), place("int8_gemm.forward", *given)
    assert codes.compute_seconds == floats.compute_seconds / PER_MULTIPLY_ADD
    assert codes.share < floats.share
    assert roofline.roofs([floats], PEAKS) == PEAKS.by_isa
    assert roofline.roofs([floats, codes], PEAKS)["8-bit"] == PER_MULTIPLY_ADD * PEAKS.flops


def test_small_arrays_have_the_roof_of_the_cache_they_lie_in() -> None:
    found = place("op", "fast", "shape", (0, 800), 4.0, PEAKS)
    assert (found.place, found.bound, found.share) == ("L1", "memory", 0.5)
    assert (found.flops, found.intensity) == (0, 0)


def test_calls_together_are_one_after_the_other() -> None:
    low = place("op", "fast", "a", (10_000, 2000), 500.0, PEAKS)
    high = place("op", "fast", "b", (1_000_000, 2000), 4000.0, PEAKS)
    (both,) = roofline.by_ladder([low, high])
    assert (both.flops, both.least_bytes, both.seconds) == (2_020_000, 4000, 4500.0)
    assert both.ideal_seconds == 2200.0
    assert both.share == 2200 / 4500
    assert (both.bound, both.label, both.place) == ("both", "2 shapes", "memory")
    assert roofline.by_ladder([low]) == [low]
    other = place("other", "fast", "a", (1, 1), 1.0, PEAKS)
    assert [one.ladder for one in roofline.by_ladder([low, other, high])] == ["op", "other"]


def test_table_puts_kernels_with_macs_first() -> None:
    points = [
        place("pass", "fast", "a", (0, 800), 4.0, PEAKS),
        place("low", "fast", "a", (10_000, 2000), 500.0, PEAKS),
        place("high", "fast", "b", (1_000_000, 2000), 4000.0, PEAKS),
    ]
    rows = roofline.table(points, 8).rows
    assert [row[0] for row in rows] == ["high", "low", "pass"]
    assert rows[1][3:] == ["10", "4e-08", "4e-09", "memory", "memory", "40%"]
    assert rows[2][3:5] == ["-", "-"]


@pytest.mark.parametrize("threads", [1, 2])
def test_peak_tables_hold_every_peak(threads: int) -> None:
    several = PEAKS
    if threads == 2:
        several = peaks.assemble(2, {"avx2": 1.9e12, "portable": 5e11}, LEVELS, PEAKS)
    flops, rates = roofline.peak_tables(several)
    assert len(flops.columns) == 1 + threads
    assert [len(row) for row in flops.rows] == [1 + threads] * len(several.by_isa)
    assert [len(row) for row in rates.rows] == [2 + threads] * 2 * len(several.levels)
    if threads == 2:
        assert flops.rows == [["avx2", "1e-06", "1900"], ["portable", "-", "500"]]


# --- measuring ----------------------------------------------------------------------------


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Known peaks, and a timer by which every call takes 2 ms."""
    timed: list[Any] = []

    def time(action: Any, **_: Any) -> timing.Timing:
        timed.append(action())
        return timing.Timing(0.002, 0.002, 0.002, 5)

    monkeypatch.setattr(timing, "timed", time)
    levels = (Level("L1", 2**16, 2**14, 4e11, 1e11), Level("memory", math.inf, 2**26, 2e10, 1e10))
    made_up = peaks.assemble(2, {"avx512": 4e11, "avx2": 2e11}, levels)
    monkeypatch.setattr(peaks, "known_peaks", lambda again=False: made_up)
    return timed


def _run(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main(["roofline", "--size", "classroom", "--json", *arguments]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_numbers_are_those_of_the_shapes(fake: list[Any], capsys: Any) -> None:
    found = _run(capsys, "--op", "depthwise.forward", "--batch", "2", "--rung", "numpy")
    assert (found["minidnn"], found["batch"], found["rung"]) == ("roofline", 2, "numpy")
    (point,) = found["points"]
    flops, least = 2 * 9 * 2 * 6 * 6 * 5, 4 * (2 * 2 * 6 * 6 * 5 + 9 * 5)
    assert (point["ladder"], point["rung"], point["label"]) == (
        "depthwise.forward",
        "numpy",
        "6x6x5",
    )
    assert (point["flops"], point["least_bytes"]) == (flops, least)
    assert point["intensity"] == flops / least
    assert point["flops_per_second"] == flops / 0.002
    assert point["bytes_per_second"] == least / 0.002
    assert point["place"] == "L1"
    assert point["share"] == pytest.approx(max(flops / 4e11, least / 4e11) / 0.002)
    assert found["peaks"]["by_isa"] == {"avx512": 4e11, "avx2": 2e11}
    assert fake


def test_every_ladder_is_placed(
    fake: list[Any], capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ladders, "estimate", lambda *_: 0.001)
    found = _run(capsys, "--rung", "numpy")
    assert {point["ladder"] for point in found["points"]} == set(load_all())


def test_without_a_rung_the_one_that_runs_here_is_placed(fake: list[Any], capsys: Any) -> None:
    (point,) = _run(capsys, "--op", "relu.forward")["points"]
    assert point["rung"] == load_all()["relu.forward"].fastest


def test_table_and_files(fake: list[Any], capsys: Any, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    out, plot = tmp_path / "out.json", tmp_path / "plot.png"
    ops = ("--op", "depthwise", "--op", "relu", "--rung", "numpy", "--size", "classroom")
    assert main(["roofline", *ops, "-o", str(out), "--plot", str(plot), "--each"]) == 0
    text = capsys.readouterr().out
    for part in ("depthwise.backward", "relu.forward", "6x6x5", "avx512", "of its roof", "memory"):
        assert part in text
    assert len(json.loads(out.read_text())["points"]) == 6
    assert plot.read_bytes().startswith(b"\x89PNG")


def _point(name: str, macs: int, size: int, seconds: float) -> Placed:
    return place(name, "fast", "4 shapes", (macs, size), seconds, PEAKS)


@pytest.mark.parametrize(
    "points",
    [
        [_point("gemm.nn", 10**6, 2000, 4000.0)],
        [_point("relu.forward", 0, 2000, 400.0)],
        [_point(f"op{i}.forward", 1000 * i, 2000, 400.0) for i in range(30)],
    ],
    ids=["with MACs only", "without only", "more than there are colours"],
)
def test_any_points_can_be_drawn(points: list[Placed], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from minidnn.measure.roofline_plot import draw

    for known in (PEAKS, Peaks(1000.0, 10.0, {}, {}, 1)):
        draw(points, known, tmp_path / "plot.png", title="made up")
        assert (tmp_path / "plot.png").stat().st_size > 1000


# --- bad input ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--op", "depthwize"], "did you mean 'depthwise'"),
        (["--op", "gemm.nm"], "did you mean 'gemm."),
        (["--op", "prelu", "--rung", "fussed"], "did you mean 'fused'"),
        (["--size", "stage"], "did you mean 'stages'"),
        (["--batch", "0"], "--batch"),
        (["--limit", "nan"], "--limit"),
        (["-o", "no/such/folder/out.json"], "no folder"),
        (["--op", "conv2d", "--batch", "100000000"], "memory"),
        (["--op", "relu", "--rung", "numpy", "--limit", "1e-9"], "limit"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    fake: list[Any], arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["roofline", *arguments]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_a_picture_of_a_kind_that_cannot_be_drawn_is_refused(
    fake: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    assert main(["roofline", "--plot", "roofline.xyz"]) == 2
    assert "expected a picture such as" in capsys.readouterr().err


def test_without_matplotlib_nothing_is_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from minidnn import plots

    monkeypatch.setattr(plots, "available", lambda: False)
    monkeypatch.setattr(peaks, "known_peaks", lambda again=False: 1 / 0)
    assert main(["roofline", "--plot", str(tmp_path / "plot.png")]) == 2
    assert "plot" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
