"""`minidnn ladder`: rates from known times, estimates, errors, names, exit codes."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minidnn import plots
from minidnn.cli import main
from minidnn.errors import ConfigError, InputError
from minidnn.kernels.ladder import load_all
from minidnn.measure import ladders, peaks, rungs, timing
from minidnn.measure.ladders import Dimensions, Measured, cases, dimensions
from minidnn.measure.peaks import Peaks

PEAKS = Peaks(flops=1e11, bandwidth=1e10, by_isa={}, by_set={}, threads=2)
RUNGS = list(load_all()["depthwise.forward"].rungs)
ONE = cases("depthwise.forward", size="classroom")[0]


@pytest.fixture(autouse=True)
def _known_peaks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peaks, "known_peaks", lambda: PEAKS)


@pytest.fixture
def halving(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each rung take half the time of the one before; the first 8 ms."""

    def take_turns(actions: dict[str, Any], **_: Any) -> dict[str, list[float]]:
        return {n: [8e-3 / 2**i] * 3 if n else [1e-5] for i, n in enumerate(actions)}

    monkeypatch.setattr(timing, "take_turns", take_turns)


def _guess(monkeypatch: pytest.MonkeyPatch, slow: str, seconds: float) -> None:
    monkeypatch.setattr(
        ladders, "estimate", lambda case, rung, *_: seconds if rung == slow else 1e-3
    )


@pytest.mark.usefixtures("halving")
def test_rates_follow_from_times() -> None:
    found = ladders.measure(ONE, PEAKS, batch=2)
    assert (found.label, found.macs) == ("6x6x5", 9 * 2 * 36 * 5)
    assert found.least_bytes == 4 * (2 * 36 * 5 + 9 * 5 + 2 * 36 * 5)
    assert [row.rung for row in found.rows] == RUNGS
    naive, *others = found.rows
    assert (naive.seconds, naive.turns, naive.speedup) == (8e-3, 3, None)
    assert naive.gflops == pytest.approx(2 * 3240 / 8e-3 / 1e9)
    assert naive.flops_share == pytest.approx(2 * 3240 / 8e-3 / 1e11)
    assert naive.gbs == pytest.approx(3060 / 8e-3 / 1e9)
    assert naive.bandwidth_share == pytest.approx(3060 / 8e-3 / 1e10)
    assert naive.idea.startswith("Plain loops, run by Python: ")
    assert [row.speedup for row in others] == pytest.approx([2.0] * len(others))
    assert all(row.error is not None and row.error < 1e-5 for row in found.rows)
    assert [row.rung for row in found.rows if row.chosen] == [RUNGS[-1]]


@pytest.mark.usefixtures("halving")
def test_a_rung_too_slow_is_estimated_and_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    _guess(monkeypatch, RUNGS[0], 100.0)
    first, second, *_ = ladders.measure(ONE, PEAKS, batch=2).rows
    assert (first.seconds, first.turns, first.error) == (100.0, 0, None)
    assert second.speedup == pytest.approx(100.0 / second.seconds)
    cells = ladders.table(Measured("", "", 2, 3240, 3060, [first, second])).rows
    assert cells[0][1] == "~1e+05"
    assert not cells[1][1].startswith("~")


@pytest.mark.usefixtures("halving")
def test_a_slow_rung_asked_for_is_refused_with_the_estimate(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _guess(monkeypatch, "naive", 20.0)
    command = ["ladder", "depthwise.forward", "--size", "classroom", "--rung", "naive"]
    assert main(command) == 2
    assert "rung naive: would take about 80 s" in capsys.readouterr().err
    with pytest.raises(InputError, match="would take"):
        ladders.measure(ONE, PEAKS, limit=1e-9)


def _counting(monkeypatch: pytest.MonkeyPatch, seconds_per_mac: float) -> list[int]:
    """Let calls take time in proportion to their MACs; return the MACs of those that ran."""
    seen: list[int] = []

    def timed(macs: int, **_: Any) -> timing.Timing:
        seen.append(macs)
        seconds = seconds_per_mac * macs
        return timing.Timing(seconds, seconds, seconds, 1)

    monkeypatch.setattr(ladders, "_action", lambda case, rung, work: work.macs)
    monkeypatch.setattr(timing, "timed", timed)
    return seen


def test_the_depthwise_ladder_ends_fused_with_its_neighbours() -> None:
    assert ladders.climbed("relu") == rungs.ladders_of("relu")
    own = rungs.ladders_of("depthwise")
    assert ladders.climbed("depthwise") == [*own, "separable.forward", "separable.backward"]
    assert ladders.climbed("depthwise.forward") == ["depthwise.forward", "separable.forward"]
    assert ladders.climbed("depthwise.backward_weight") == ["depthwise.backward_weight"]


def test_rungs_asked_for_by_name_are_of_the_op_itself(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["ladder", "depthwise.forward", "--size", "classroom", "--json", "--rung", "border"]
    assert main(command) == 0
    assert [one["ladder"] for one in json.loads(capsys.readouterr().out)["ladders"]] == [
        "depthwise.forward"
    ]


def test_an_estimate_scales_by_work(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = _counting(monkeypatch, 1e-9)
    (case,) = cases("gemm.nn", shape="14x14x256->128")
    assert ladders.estimate(case, "naive", 8, 30.0) == pytest.approx(1e-9 * 8 * 196 * 256 * 128)
    assert seen == sorted(seen)
    assert seen[-1] == 196 * 256 * 128


def test_an_estimate_stops_climbing_where_it_gets_long(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = _counting(monkeypatch, 1e-6)
    (case,) = cases("gemm.nn", shape="512x512x1024")
    got = ladders.estimate(case, "naive", 2, 30.0)
    assert got == pytest.approx(1e-6 * 2 * 512**2 * 1024**2)
    assert 1e-6 * seen[-1] < 30 / 8


@pytest.mark.parametrize("stalled", [0, 3, -1])
def test_one_call_that_was_held_up_does_not_make_a_rung_slow(
    stalled: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = _counting(monkeypatch, 1e-9)
    (case,) = cases("gemm.nn", shape="14x14x256->128")
    calm = ladders.estimate(case, "naive", 8, 1.0)
    which = stalled % len(seen)
    timed, calls = timing.timed, itertools.count()

    def busy(action: Any, **settings: Any) -> timing.Timing:
        found = timed(action, **settings)
        return found._replace(seconds=20.0) if next(calls) == which else found

    monkeypatch.setattr(timing, "timed", busy)
    assert ladders.estimate(case, "naive", 8, 1.0) == pytest.approx(calm)


@pytest.mark.parametrize(
    ("rung", "expected"),
    [(lambda x: 1.5 * np.maximum(x, 0), 0.5), (lambda x: np.maximum(x, 0), 0.0)],
)
def test_a_wrong_rung_shows_its_error(
    rung: Callable[..., Any], expected: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(load_all()["relu.forward"].rungs, "odd", rung)
    (case,) = cases("relu.forward", size="classroom")
    assert ladders.errors(case, ["odd"], 1)["odd"] == pytest.approx(expected)


def test_an_error_is_relative_to_the_largest_value() -> None:
    assert ladders.error_of(np.array([1.0, 4.5]), np.array([1.0, -5.0])) == 9.5 / 5
    assert ladders.error_of(np.array([0.25]), np.array([0.0])) == 0.25


def test_shapes_are_read() -> None:
    assert dimensions("28x28x64->128") == Dimensions(28, 64, 128)
    assert dimensions("28x28x64") == Dimensions(28, 64, 64)
    assert dimensions("stem") is None
    (case,) = cases("pointwise.backward_weight", shape="28x28x64->128")
    assert case.work(batch=3).macs == 3 * 28 * 28 * 64 * 128
    assert case.work(batch=3, halvings=2).macs == 3 * 7 * 7 * 16 * 32
    with pytest.raises(ConfigError, match="square"):
        dimensions("28x14x64")
    with pytest.raises(ConfigError, match="at least 1"):
        dimensions("28x28x0")


@pytest.mark.parametrize("name", load_all())
def test_every_ladder_has_a_shape_by_default_by_name_and_by_size(name: str) -> None:
    (case,) = cases(name)
    assert case.work(2, halvings=9).drawn()
    assert cases(name, shape="7x7x6->5")[0].work(1).drawn()
    assert [one.label for one in cases(name, size="classroom")]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["dephtwise"], "did you mean 'depthwise'?"),
        (["depthwise.backwrd"], "did you mean 'depthwise.backward'?"),
        (["conv2d.forward", "--shape", "stm"], "did you mean 'stem'?"),
        (["depthwise", "--shape", "28x28"], "unknown shape"),
        (["depthwise", "--shape", "28x14x64"], "square"),
        (["depthwise", "--rung", "naiv"], "did you mean 'naive'?"),
        (["depthwise", "--size", "ful"], "did you mean 'full'?"),
        (["depthwise", "--batch", "0"], "at least 1"),
        (["depthwise", "--shape", "99999x99999x512"], "of memory"),
        (["depthwise", "--bach", "1"], "did you mean '--batch'?"),
    ],
)
def test_bad_input_is_one_line(
    options: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ladder", *options]) == 2
    out, err = capsys.readouterr()
    assert expected in err
    assert err.count("\n") == 1
    assert not out


def test_json_holds_every_rung(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "ladder.json"
    command = ["ladder", "relu", "--size", "classroom", "--batch", "2", "--json"]
    assert main([*command, "-o", str(file)]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result == json.loads(file.read_text(encoding="utf-8"))
    assert (result["minidnn"], result["op"], result["batch"]) == ("ladder", "relu", 2)
    assert result["peaks"] == {"flops": 1e11, "bandwidth": 1e10}
    assert [one["ladder"] for one in result["ladders"]] == rungs.ladders_of("relu")
    for one in result["ladders"]:
        assert [row["rung"] for row in one["rows"]] == list(load_all()[one["ladder"]].rungs)
        for row in one["rows"]:
            assert set(row) == set(ladders.Row.__dataclass_fields__)
            assert row["seconds"] > 0
            assert row["low"] <= row["seconds"] <= row["high"]


@pytest.mark.usefixtures("halving")
def test_tables_and_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    file = tmp_path / "ladder.png"
    command = ["ladder", "depthwise.forward", "--size", "classroom", "--plot", str(file)]
    assert main(command) == 0
    text = capsys.readouterr().out
    assert "depthwise.forward at 8 x 6x6x5" in text
    assert "Plain loops, run by Python" in text
    assert "fused with its neighbours" in text
    assert file.read_bytes().startswith(b"\x89PNG")


def test_a_picture_without_matplotlib_is_refused_before_measuring(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(plots, "available", lambda: False)
    assert main(["ladder", "relu", "--plot", str(tmp_path / "x.png")]) == 2
    assert "minidnn[plot]" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
