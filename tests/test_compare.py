"""minidnn bench: intervals that hold the truth, words that are earned, input that is refused."""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minidnn.cli import main
from minidnn.errors import InputError
from minidnn.kernels.ladder import load_all
from minidnn.measure import commits, compare, rungs
from minidnn.measure.results import envelope
from minidnn.measure.shapes import CLASSROOM
from minidnn.measure.workloads import workloads
from tests.processes import ROOT

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")


def _times(rng: np.random.Generator, rounds: int, spread: float = 0.2) -> list[float]:
    """Draw times whose median is 1, with a long tail of slow ones, as machines give them."""
    return [float(t) for t in np.exp(spread * rng.standard_t(3, rounds))]


def _drawn(rng: np.random.Generator, rounds: int, ratio: float) -> tuple[list[float], list[float]]:
    """Draw rounds on a machine whose clock wanders, the second side `ratio` times as fast."""
    clock = np.exp(np.cumsum(0.1 * rng.standard_normal(rounds)))
    first, second = (np.array(_times(rng, rounds, 0.05)) for _ in range(2))
    return [float(t) for t in clock * first * ratio], [float(t) for t in clock * second]


# --- the bootstrap ----------------------------------------------------------------------------


@pytest.mark.parametrize("rounds", [7, 10, 21])
@pytest.mark.parametrize("ratio", [1.0, 1.5])
def test_intervals_hold_the_true_ratio_as_often_as_they_say(
    rounds: int, ratio: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compare, "RESAMPLES", 500)
    rng = np.random.default_rng(5)
    pairs = [compare.paired(*_drawn(rng, rounds, ratio)) for _ in range(400)]
    held = sum(found.low <= ratio <= found.high for found in pairs) / len(pairs)
    assert 0.92 <= held < 1
    if ratio == 1:
        assert sum(found.word == "inconclusive" for found in pairs) / len(pairs) == held
    alone = [
        compare.unpaired([ratio * t for t in _times(rng, rounds)], _times(rng, rounds + 5))
        for _ in range(400)
    ]
    assert 0.92 <= sum(f.low <= ratio <= f.high for f in alone) / len(alone) < 1


def test_few_rounds_widen_the_interval_by_students_t() -> None:
    # t at 97.5 % from a table: 2.447 for 6 degrees of freedom, 2.086 for 20
    normal = statistics.NormalDist()
    assert compare.tail(7) == pytest.approx(normal.cdf(-2.447 * (7 / 6) ** 0.5), rel=0.01)
    assert compare.tail(21) == pytest.approx(normal.cdf(-2.086 * (21 / 20) ** 0.5), rel=0.01)
    assert compare.tail(100_000) == pytest.approx(0.025, rel=1e-3)


def test_pairs_see_through_a_wandering_clock_and_medians_through_a_bad_round() -> None:
    rng = np.random.default_rng(0)
    first, second = _drawn(rng, 21, 1.3)
    first[3] *= 100
    found = compare.paired(first, second)
    assert found.word == "faster"
    assert 1.1 < found.low < found.ratio < found.high < 1.55
    assert compare.paired(second, first).word == "slower"
    assert compare.paired(second, first).ratio == pytest.approx(1 / found.ratio)


def test_the_same_rounds_give_the_same_interval() -> None:
    first, second = _drawn(np.random.default_rng(1), 9, 1.1)
    assert compare.paired(first, second) == compare.paired(first, second)
    assert compare.unpaired(first, second) == compare.unpaired(first, second)


def test_a_ratio_is_the_median_of_ratios_or_the_ratio_of_medians() -> None:
    first, second = [2.0, 9.0, 4.0] * 3, [4.0, 3.0, 4.0] * 3
    assert compare.paired(first, second).ratio == 1.0  # of 0.5, 3 and 1
    assert compare.unpaired(first, second).ratio == 1.0  # 4 by 4
    exact = compare.paired([3.0] * 7, [2.0] * 7)
    assert exact == (1.5, 1.5, 1.5, "faster")
    with pytest.raises(ValueError, match="pairs"):
        compare.paired([1.0], [1.0, 2.0])


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [
        (1.01, 2.0, "faster"),
        (0.5, 0.99, "slower"),
        (0.9, 1.1, "inconclusive"),
        (1.0, 1.1, "inconclusive"),
        (0.9, 1.0, "inconclusive"),
        (float("nan"), float("nan"), "inconclusive"),
    ],
)
def test_a_word_needs_an_interval_beyond_one(low: float, high: float, word: str) -> None:
    assert compare.word(low, high) == word


def test_few_rounds_earn_no_word() -> None:
    assert compare.paired([2.0] * 6, [1.0] * 6).word == "inconclusive"
    assert compare.unpaired([2.0] * 30, [1.0] * 6).word == "inconclusive"


# --- rungs in one process -----------------------------------------------------------------------


def test_rungs_take_turns_and_every_round_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ["--size", "classroom", "--batch", "2", "--rounds", "7"]
    assert main(["bench", "run", "depthwise", *sizes, "--rung", "numpy", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["minidnn"], found["rounds"]) == ("bench run", 7)
    by_ladder = {case["ladder"]: case for case in found["cases"]}
    assert set(by_ladder) == {name for name in load_all() if name.startswith("depthwise.")}
    ahead, back = (by_ladder[f"depthwise.{way}"] for way in ("forward", "backward"))
    x, w = 2 * 6 * 6 * 5, 3 * 3 * 5
    assert (ahead["macs"], ahead["bytes"]) == (9 * x, 4 * (x + w + x))
    assert (back["macs"], back["bytes"]) == (18 * x, 4 * (x + x + w + x + w))
    for case in (ahead, back):
        assert (case["rung"], case["batch"], case["label"]) == ("numpy", 2, "6x6x5")
        assert len(case["seconds"]) == 7
        assert all(0 < t < 1 for t in case["seconds"])


def _ladder_with(monkeypatch: pytest.MonkeyPatch, **more: Callable[..., Any]) -> None:
    ladder = load_all()["relu.forward"]
    monkeypatch.setattr(ladder, "rungs", {**ladder.rungs, **more})


def test_a_rung_that_waits_is_slower_and_one_compared_with_itself_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def waits(x: Any) -> Any:
        time.sleep(0.02)
        return np.maximum(x, 0)

    _ladder_with(monkeypatch, waits=waits)
    sizes = ["--size", "classroom", "--rounds", "9"]
    names = ["relu.forward:numpy", "relu.forward:waits"]
    assert main(["bench", "compare", *names, *sizes, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    (row,) = found["rows"]
    assert (found["paired"], row["word"]) == (True, "slower")
    assert row["case"] == {"ladder": "relu.forward", "label": "6x6x5", "batch": 1}
    ratios = np.divide(row["first_seconds"], row["second_seconds"])
    assert row["ratio"] == pytest.approx(np.median(ratios))
    assert row["low"] <= row["ratio"] <= row["high"] < 0.5
    assert main(["bench", "compare", *names[::-1], *sizes]) == 0
    said = capsys.readouterr().out
    assert "relu.forward:numpy against relu.forward:waits" in said
    assert " faster " in said


def test_a_rung_that_computes_something_else_is_not_timed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _ladder_with(monkeypatch, wrong=lambda x: x)
    names = ["relu.forward:numpy", "relu.forward:wrong"]
    assert main(["bench", "compare", *names, "--size", "classroom"]) == 2
    assert "does not compute what the numpy rung does" in capsys.readouterr().err


def test_what_differs() -> None:
    y, k = np.array([1.0, -3.0, 2.0]), np.arange(3)
    assert not rungs.differs([y.astype(np.float32), k], [y, k])
    for got in ([y], [y, k[::-1]], [y * 1.01, k], [y * np.nan, k], [y[:1], k]):
        assert rungs.differs(got, [y, k])


def test_bytes_are_estimated_without_drawing_the_batch() -> None:
    for name, works in workloads(CLASSROOM, 7).items():
        cases = [c for c in rungs.cases(name, "classroom", 7) if c.ladder == name]
        for case, work in zip(cases, works, strict=True):
            drawn = sum(a.nbytes for a in work.drawn() if isinstance(a, np.ndarray))
            assert rungs.bytes_of(case, 7) == drawn, name


# --- files ------------------------------------------------------------------------------------


def _file(path: Path, seconds: dict[str, list[float]], **machine: Any) -> Path:
    cases = [
        {"ladder": "relu.forward", "rung": r, "label": "1x1x1", "batch": 1, "seconds": times}
        for r, times in seconds.items()
    ]
    found = envelope("bench run", {"op": "relu", "size": "full", "rounds": 9, "cases": cases})
    found["machine"] |= machine
    path.write_text(json.dumps(found), encoding="utf-8")
    return path


def test_two_machines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(2)
    slow, same = [3e-3 * t for t in _times(rng, 15, 0.02)], [2e-3] * 15
    a = _file(tmp_path / "a.json", {"naive": slow, "numpy": same, "old": same}, cpu="Alpha")
    b = _file(tmp_path / "b.json", {"numpy": same, "naive": same}, cpu="Beta")
    assert main(["bench", "compare", str(a), str(b), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    rows = {row["case"]["rung"]: row for row in found["rows"]}
    assert list(rows) == ["naive", "numpy"]
    assert rows["naive"]["ratio"] == pytest.approx(np.median(slow) / 2e-3)
    assert (rows["naive"]["word"], rows["numpy"]["word"]) == ("faster", "inconclusive")
    assert found["differences"] == {"cpu": ["Alpha", "Beta"]}
    assert (found["paired"], found["left_out"]) == (False, 1)
    assert main(["bench", "compare", str(a), str(b)]) == 0
    said = capsys.readouterr().out
    assert "cpu: Alpha | Beta" in said
    assert "1 cases stand in one file only" in said


def test_what_is_written_can_be_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(tmp_path / "run.json")
    short = ["--size", "classroom", "--rounds", "7", "--rung", "numpy"]
    assert main(["bench", "run", "relu.forward", *short, "-o", file]) == 0
    assert main(["bench", "compare", file, file]) == 0
    said = capsys.readouterr().out
    assert "inconclusive" in said
    assert "the same CPU, threads and versions" in said


def test_differences_look_into_versions_and_past_the_date() -> None:
    a = {"date": 1, "cpu": "x", "threads": 2, "versions": {"numpy": "2.0", "numba": "1"}}
    b = {"date": 2, "cpu": "x", "threads": 4, "versions": {"numpy": "2.1", "numba": "1"}}
    assert compare.differences(a, b) == {"threads": [2, 4], "numpy": ["2.0", "2.1"]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 0}, "expected version 1 of the file, got 0"),
        ({"minidnn": "ladder"}, "expected a result of `minidnn bench run`, got 'ladder'"),
        ({"cases": []}, "expected cases with seconds"),
        ({"cases": [{"ladder": "relu"}]}, "expected cases with seconds"),
        ({"machine": None}, "expected a description of the machine"),
    ],
)
def test_other_files_are_refused(
    change: dict[str, Any], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = _file(tmp_path / "good.json", {"numpy": [1.0] * 9})
    bad = tmp_path / "bad.json"
    bad.write_text(json.dumps({**json.loads(good.read_text("utf-8")), **change}), encoding="utf-8")
    _refused(["bench", "compare", str(good), str(bad)], message, capsys)


@pytest.mark.parametrize("seconds", [[0.0], [-1.0], [float("nan")], ["1"], [], 3.0])
def test_times_that_are_none_are_refused(seconds: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected cases with seconds"):
        compare.read_run(_file(tmp_path / "bad.json", {"numpy": seconds}))


# --- commits ------------------------------------------------------------------------------------

KERNEL = """
import time
from .ladder import Ladder
def forward_numpy(x):
    time.sleep({wait})
    return {result}
forward = Ladder("relu.forward", naive=forward_numpy, numpy=forward_numpy)
"""


def _commit(repository: Path, wait: float, result: str) -> None:
    (repository / "minidnn/kernels/relu.py").write_text(KERNEL.format(wait=wait, result=result))
    who = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
    for command in (("add", "--all"), (*who, "commit", "--quiet", "--message", result)):
        subprocess.run(["git", *command], cwd=repository, check=True)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Return a repository whose last commit made relu wait less; the one before is wrong."""
    folder = tmp_path / "a repository"
    (folder / "minidnn/kernels").mkdir(parents=True)
    (folder / "minidnn/__init__.py").touch()
    (folder / "minidnn/kernels/__init__.py").touch()
    shutil.copy(ROOT / "kernels/ladder.py", folder / "minidnn/kernels")
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
    _commit(folder, 0.06, "x * (x > 0)")
    _commit(folder, 0.0, "x * 2")
    _commit(folder, 0.001, "x.clip(0)")
    return folder


@needs_git
def test_two_commits_run_their_own_code_in_turns(
    repository: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(repository / "minidnn")
    command = ["relu.forward:numpy", "--size", "classroom", "--rounds", "7", "--json"]
    assert main(["bench", "compare", "--commits", "HEAD~2", "HEAD", *command]) == 0
    found = json.loads(capsys.readouterr().out)
    (row,) = found["rows"]
    assert row["word"] == "faster"
    assert all(t >= 0.06 for t in row["first_seconds"])
    assert all(t >= 0.001 for t in row["second_seconds"])
    assert found["first"].startswith("HEAD~2 (")
    assert len(found["commits"][0]) == 40
    status = subprocess.run(
        ["git", "status", "--porcelain"], cwd=repository, capture_output=True, check=True
    )
    assert status.stdout == b""


@needs_git
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["HEAD~1", "HEAD", "relu.forward:numpy"], "the commits do not compute the same"),
        (["nope", "HEAD", "relu.forward"], "unknown commit: 'nope'"),
        (["--all", "HEAD", "relu.forward"], "expected 2 arguments"),
        (["HEAD", "HEAD", "relu.forward:fused"], "unknown rung of relu.forward: 'fused'"),
        (["HEAD", "HEAD", "prelu.forward:numpy"], "did you mean 'relu.forward'"),
        (["HEAD", "HEAD", "relu.forward", "relu.forward"], "expected one OP"),
    ],
)
def test_commits_that_cannot_be_compared(
    arguments: list[str],
    message: str,
    repository: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(repository)
    short = ["--size", "classroom", "--rounds", "7"]
    _refused(["bench", "compare", "--commits", *arguments, *short], message, capsys)


@needs_git
def test_commits_need_a_repository(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="git rev-parse"):
        commits.commit("HEAD", tmp_path)


# --- bad input ------------------------------------------------------------------------------------


def _refused(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "depthwize"], "unknown op: 'depthwize'; did you mean 'depthwise'"),
        (["run", "depthwise.foward"], "did you mean 'depthwise.forward'"),
        (["run", "relu", "--rung", "numppy"], "did you mean 'numpy'"),
        (["run", "relu", "--batch", "0"], "--batch: expected at least 1 image"),
        (["run", "relu", "--rounds", "6"], "--rounds: expected at least 7"),
        (["run", "relu", "--size", "ful"], "did you mean 'full'"),
        (["run", "relu", "-o", "nowhere/x.json"], "--out: no folder"),
        (["run", "relu", "--batch", "100000000"], "of memory"),
        (["run", "gemm.nn", "--rung", "naive", "--limit", "0.01"], "would take about"),
        (["compare", "relu.forward:numpy"], "expected two things to compare, got 1"),
        (["compare", "relu.forward:numpy", "relu.forward:fast"], "unknown rung of relu.forward"),
        (["compare", "relu.forward", "prelu.forward"], "expected two rungs of one op"),
        (["compare", "none.json", "none.json"], "No such file or directory"),
        (["compare", "a.json", "b.json", "--batch", "2"], "--batch: files hold"),
        (["compare", "relu", "relu", "--threads", "0"], "--threads: expected 1 to"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _refused(["bench", *arguments], message, capsys)
