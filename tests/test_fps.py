"""Serving: turns on a clock that tests turn by hand, joules from files, and what `fps` prints."""

from __future__ import annotations

import itertools
import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import report
from minidnn import cli
from minidnn.cli import fps
from minidnn.errors import InputError
from minidnn.measure import energy, latency, serving, serving_report
from minidnn.measure.energy import Meter
from minidnn.measure.serving import Case
from minidnn.models import build
from minidnn.threads import max_threads, num_threads
from tests.test_latency import Clock


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    turned = Clock()
    monkeypatch.setattr(latency, "time", turned)
    return turned


def _serving(clock: Clock, *, seconds: float = 18.0, idle: float = 0.005, **each: Any) -> Any:
    """Measure cases whose calls take so many seconds."""
    cases = [
        Case(name, "float32", 1, partial(clock.taking, itertools.repeat(s)))
        for name, s in each.items()
    ]
    return serving.measure(cases, batch=2, seconds=seconds, idle=idle)


# --- turns ------------------------------------------------------------------------------------


def test_every_case_serves_as_long_at_both_paces(clock: Clock) -> None:
    start = clock.now
    found = _serving(clock, quick=0.001, slow=0.025)
    assert found["rounds"] == serving.ROUNDS
    assert clock.now - start == pytest.approx(18 + 2, rel=0.2)  # and the warm-up
    for case, took in zip(found["cases"], (0.001, 0.025), strict=True):
        for pace, gap in (("back_to_back", 0), ("paced", 0.005)):
            assert case[pace]["p50"] == case[pace]["p99"] == pytest.approx(took)
            assert case[pace]["calls"] == pytest.approx(4.5 / (took + gap), rel=0.1)
            assert case[pace]["frames_per_second"] == pytest.approx(2 / took)
            assert len(case[pace]["round_p50"]) == serving.ROUNDS
    assert set(clock.naps) == {0.005}


def test_without_idle_time_nobody_sleeps(clock: Clock) -> None:
    found = _serving(clock, idle=0, one=0.01)
    assert clock.naps == []
    assert "paced" not in found["cases"][0]


def test_slow_calls_take_fewer_rounds_and_at_last_one_call_each(clock: Clock) -> None:
    assert _serving(clock, seconds=6, idle=0, slow=1.0)["rounds"] == 3
    found = _serving(clock, seconds=0.001, idle=0, slow=1.0)
    assert (found["rounds"], found["cases"][0]["back_to_back"]["calls"]) == (1, 1)


def test_what_would_take_hours_is_refused(clock: Clock) -> None:
    with pytest.raises(InputError, match="limit is 60 minutes"):
        _serving(clock, seconds=1e5, one=0.01)
    with pytest.raises(InputError, match="limit is 60 minutes"):
        _serving(clock, one=4000.0)
    with pytest.raises(InputError, match="limit is 60 minutes"):
        _serving(clock, seconds=float("nan"), one=0.01)


def test_who_goes_first_changes_and_threads_are_put_back(clock: Clock) -> None:
    seen: list[tuple[str, int]] = []

    def call(name: str) -> None:
        clock.now += 0.1
        seen.append((name, num_threads()))

    before, most = num_threads(), max_threads()
    cases = [Case("a", "int8", 1, partial(call, "a")), Case("b", "int8", most, partial(call, "b"))]
    cases.append(Case("c", "int8", 1, missing="there is none"))
    found = serving.measure(cases, batch=1, seconds=4, idle=0)
    assert num_threads() == before
    assert set(seen) == {("a", 1), ("b", most)}
    names = [name for name, _ in seen]
    turns = [name for name, _ in itertools.groupby(names)]
    # Whoever is last in a round begins the next; the first two turns warm up.
    assert len(turns) == 2 + 2 * serving.ROUNDS - (serving.ROUNDS - 1)
    assert names.count("a") == pytest.approx(names.count("b"), abs=2)
    assert found["cases"][2] == {
        "network": "c", "precision": "int8", "threads": 1, "missing": "there is none"
    }  # fmt: skip


# --- joules -----------------------------------------------------------------------------------


def _domain(folder: Path, name: str, kind: str, microjoules: int) -> Path:
    path = folder / name
    path.mkdir(parents=True)
    (path / "name").write_text(f"{kind}\n")
    (path / "energy_uj").write_text(f"{microjoules}\n")
    (path / "max_energy_range_uj").write_text("999999\n")
    return path / "energy_uj"


def test_joules_are_those_of_all_packages_and_of_nothing_twice(tmp_path: Path) -> None:
    first = _domain(tmp_path, "intel-rapl:0", "package-0", 500_000)
    second = _domain(tmp_path, "intel-rapl:1", "package-1", 900_000)
    core = _domain(tmp_path, "intel-rapl:0:0", "core", 0)
    whole = _domain(tmp_path, "intel-rapl:2", "psys", 0)
    meter = Meter(tmp_path)
    assert meter.missing is None
    before = meter.read()
    first.write_text("750000\n")
    second.write_text("100000\n")  # began again
    core.write_text("900000\n")
    whole.write_text("900000\n")
    assert meter.joules_since(before) == pytest.approx(0.25 + 0.2)


def test_joules_of_a_frame_count_timed_calls_only(clock: Clock, tmp_path: Path) -> None:
    counter = _domain(tmp_path, "intel-rapl:0", "package-0", 0)

    def call() -> None:
        clock.now += 0.1
        counter.write_text(str((int(counter.read_text()) + 1000) % 1_000_000))

    case = Case("one", "float32", 1, call)
    found = serving.measure([case], batch=4, seconds=5, idle=0.1, meter=Meter(tmp_path))
    for pace in ("back_to_back", "paced"):
        assert found["cases"][0][pace]["joules_a_frame"] == pytest.approx(0.001 / 4)
    assert "unavailable" not in serving_report.tables(found)[0].markdown()


def _refused(path: Path) -> str:
    raise PermissionError(13, "Permission denied", str(path))


def test_why_there_are_no_joules_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = Meter(tmp_path / "none")
    assert "no such folder" in str(nowhere.missing)
    assert nowhere.joules_since(nowhere.read()) is None
    assert "no counter of a CPU package" in str(Meter(tmp_path).missing)
    counter = _domain(tmp_path, "intel-rapl:0", "package-0", 0)
    counter.write_text("many")
    assert "many" in str(Meter(tmp_path).missing)
    monkeypatch.setattr(energy, "_text", _refused)
    assert "may not be read by this user" in str(Meter(tmp_path).missing)


# --- what people read -------------------------------------------------------------------------


def _found(clock: Clock) -> Any:
    """Return a comparison of 500, 40 and 10 frames/s, and one that is missing, as from JSON."""
    seconds = {"fast": 0.002, "middle": 0.025, "slow": 0.1}
    cases = [
        Case(name, "float32", 1, partial(clock.taking, itertools.repeat(s)))
        for name, s in seconds.items()
    ]
    cases.append(Case("fast", "int8", 1, missing="not here"))
    return json.loads(json.dumps(serving.measure(cases, batch=1, seconds=5, idle=0.005)))


def test_the_lines_stand_between_those_above_and_those_below(clock: Clock) -> None:
    lines, ratios = serving_report.tables(_found(clock))
    first = [row[0] for row in lines.rows]
    assert [name.split(",")[0].split(":")[0] for name in first] == [
        "fast", "--- 60 frames/s", "middle", "--- 15 frames/s", "slow", "fast"
    ]  # fmt: skip
    assert lines.rows[0][1:] == ["2", "2", "500", "33.3x", "8.3x", "2", "2"]
    assert lines.rows[1][1:] == ["16.7", "16.7", "60"]
    assert lines.rows[5][3] == "not here"
    assert ["fast, float32, 1 thread, against slow", "50.00 (50.00 to 50.00)"] in ratios.rows
    assert len(ratios.rows) == 3


def test_few_calls_and_missing_joules_are_said(clock: Clock) -> None:
    found = _found(clock)
    few, joules = serving_report.texts(found | {"joules_missing": "no counter"})
    assert few.startswith("p99 of fewer than 100 calls is the slowest; the fewest are ")
    assert joules == "joules: unavailable: no counter"
    assert serving_report.texts(_serving(clock, idle=0, one=0.001) | {"joules_missing": None}) == []


def test_the_page_of_results_takes_the_comparison(clock: Clock) -> None:
    machine = {"date": "today", "cpu": "a CPU", "affinity": [0], "threads": 1, "python": "3"}
    found = _found(clock) | {"machine": machine | {"versions": {"numpy": "2"}}}
    text = report.section(report.PARTS["fps"], found)
    assert text.startswith("## Frames per second\n\n`python -m minidnn fps --table`, today; a CPU")
    assert "| --- 15 frames/s: what the paper states --- | 66.7 | 66.7 | 15 |" in text
    assert "```\np99 of fewer" in text


# --- the command ------------------------------------------------------------------------------


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the table's networks small."""

    def network(name: str) -> Any:
        rng = np.random.default_rng(0)
        return build(name, rng=rng, stem=4, stages=(4, 8), blocks=1).eval()

    monkeypatch.setattr(fps, "_network", network)


def _json(capsys: pytest.CaptureFixture[str], *command: str) -> Any:
    assert cli.main(["fps", *command, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_network_by_name_serves_with_random_weights(
    small: None, capsys: pytest.CaptureFixture[str]
) -> None:
    found = _json(capsys, "quicknet", "--seconds", "0.2", "--batch", "3", "--threads", "1")
    (case,) = found["cases"]
    assert found["weights"] == "quicknet: random weights"
    assert (case["network"], case["precision"], case["threads"]) == ("quicknet", "float32", 1)
    for pace in ("back_to_back", "paced"):
        assert 0 < case[pace]["p50"] <= case[pace]["p95"] <= case[pace]["p99"]
    assert cli.main(["fps", "plain_cnn", "--seconds", "0.1", "--idle", "0"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("plain_cnn: random weights\n")
    assert "back to back" in out
    assert "idle" not in out


def test_the_table_compares_networks_precisions_and_threads(
    small: None, capsys: pytest.CaptureFixture[str]
) -> None:
    most = min(2, max_threads())
    assert cli.main(["fps", "--table", "--seconds", "0.5"]) == 0
    out = capsys.readouterr().out
    for name in ("quicknet", "plain_cnn"):
        for precision in ("float32", "int8"):
            for threads in {1, most}:
                assert f"{name}, {precision}, {threads} thread" in out
    for line in (15, 60):
        assert f"--- {line} frames/s" in out
    plan = fps._int8("quicknet")
    assert fps._case("q.minidnn", plan, 1).precision == "int8"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "either MODEL or --table"),
        ("quicknet --table", "either MODEL or --table"),
        ("quicknet --batch 0", "--batch: expected at least 1, got 0"),
        ("quicknet --batch 99999999999999999999", "needs about"),
        ("quicknet --threads 0", "--threads: expected 1 to"),
        ("quicknet --seconds 0", "--seconds: expected more than 0"),
        ("quicknet --seconds inf", "at most 3600"),
        ("quicknet --seconds nan", "got nan"),
        ("quicknet --idle -1", "--idle: expected 0 to"),
        ("missing.minidnn", "No such file"),
        ("runs/missing", "no run with a checkpoint"),
        ("quicnet", "did you mean 'quicknet'?"),
    ],
)
def test_bad_input_is_one_line(
    arguments: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["fps", *arguments.split()]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
