"""Exercises: how fast an answer is, what is said of it, and what cannot be told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from minidnn import cli
from minidnn.measure.compare import paired
from minidnn.measure.exercises import grader
from tests.exercise_answers import ANSWERS
from tests.exercise_runs import graded, saved

PRELU = ANSWERS["prelu_backward"]


def _timed(ours: list[float], theirs: list[float], factor: float = 1) -> tuple[str, grader.Part]:
    part = grader.Part(0, {"shape": "a shape"})
    verdict, message = grader.judge_speed(part, ours, theirs, "naive", factor)
    assert verdict == part.found["conclusion"]
    assert "naive" in message
    return verdict, part


@pytest.mark.parametrize(
    ("speed_up", "factor", "verdict", "score"),
    [(2, 1, "passed", 1), (0.5, 1, "slow", 0.5), (0.5, 0.4, "passed", 1), (2, 4, "slow", 0.5)],
)
def test_a_known_ratio_is_found(speed_up: float, factor: float, verdict: str, score: float) -> None:
    theirs = [1 + 0.3 * (i % 5) for i in range(21)]  # a noisy machine, for both alike
    ours = [t / speed_up * (1 + 0.02 * (i % 3 - 1)) for i, t in enumerate(theirs)]
    found, part = _timed(ours, theirs, factor)
    assert found == verdict
    assert part.score == pytest.approx(score)
    assert part.found["ratio"] == pytest.approx(speed_up)
    assert part.found["low"] <= speed_up <= part.found["high"]


def test_what_cannot_be_told_is_called_inconclusive() -> None:
    rng = np.random.default_rng(0)
    theirs = np.exp(0.1 * rng.standard_normal(21))
    verdict, _ = _timed(list(theirs[::-1]), list(theirs))
    assert verdict == "inconclusive"


def test_few_rounds_leave_a_factor_of_two() -> None:
    for rounds in (1, 6):
        assert _timed([1.0] * rounds, [1.9] * rounds)[0] == "inconclusive"
        assert _timed([1.0] * rounds, [2.1] * rounds)[0] == "passed"
        assert _timed([1.0] * rounds, [0.4] * rounds)[0] == "slow"
        assert _timed([1.0] * rounds, [0.4] * rounds, 0.1)[0] == "passed"
    assert _timed([1.0] * 7, [1.1] * 7)[0] == "passed"


@pytest.mark.parametrize("factor", [1.0, 0.7])
def test_the_interval_is_that_of_bench_compare(factor: float) -> None:
    rng = np.random.default_rng(1)
    ours, theirs = (list(np.exp(0.2 * rng.standard_normal(15))) for _ in range(2))
    _, part = _timed(ours, theirs, factor)
    same = paired(theirs, ours)
    assert part.found["ratio"] == pytest.approx(same.ratio)
    assert (part.found["low"], part.found["high"]) == pytest.approx((same.low, same.high))
    word = {"faster": "passed", "slower": "slow"}.get(same.word, same.word)
    assert factor != 1 or part.found["conclusion"] == word


def test_a_good_answer_passes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # A hundredth of the rung's speed is asked for, so that no busy machine fails this test.
    options = ("--against", "numpy", "--factor", "0.01")
    code, found, err = graded(saved(tmp_path, PRELU), capsys, *options)
    assert (code, found["verdict"], found["passed"], err) == (0, "passed", True, "")
    assert found["minidnn"] == "exercise"
    assert [part["score"] for part in found["parts"].values()] == [1, 1, 1]
    assert set(found["parts"]) == {"rules", "correctness", "speed"}
    speed = found["parts"]["speed"]
    assert set(speed) == {
        "score", "against", "factor", "shape", "ratio", "low", "high", "conclusion", "rounds",
        "seconds", "rung_seconds",
    }  # fmt: skip
    assert speed["low"] <= speed["ratio"] <= speed["high"]
    assert speed["ratio"] == pytest.approx(speed["rung_seconds"] / speed["seconds"], rel=0.5)


def test_a_slow_answer_is_called_slow(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    again = "for _ in range(50):\n        dx = np.where(positive, dy, slope * dy)\n    dslope ="
    path = saved(tmp_path, PRELU.replace("dslope =", again))
    code = cli.main(["exercise", "grade", str(path), "--against", "numpy"])
    text = capsys.readouterr().out
    assert code == 1
    assert "correctness  9 of 9 tests passed" in text
    assert "verdict      slow: correct, but only 0." in text


def test_an_answer_too_slow_to_time_is_slow(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = PRELU.replace("positive = x", "while x.size > 10_000: pass\n    positive = x")
    code, found, _ = graded(
        saved(tmp_path, source), capsys, "--against", "numpy", "--timeout", "1.5"
    )
    assert (code, found["verdict"]) == (1, "slow")
    assert "too slow to time, no end within 1.5 s" in found["message"]
    assert [part["score"] for part in found["parts"].values()] == [1, 1, 0]
