"""What comparisons with other engines promise: the same network, the fair rival, no gaps hidden."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import contenders, judging, peer_tables, peers, recipe, report, side, side_engine
from bench.contenders import INT8, OURS, PLAN, Peer, Settings
from minidnn.measure import machine

INFER = Settings("infer", "quicknet", 128, 5, 2, ("eager_nchw", "openvino_float32"))


def test_training_is_held_against_the_best_mode_and_failures_stay_visible() -> None:
    def side(seconds: float, memory: float) -> dict[str, Any]:
        return {
            "seconds": [seconds] * 5,
            "peak_memory": memory,
            "imported_memory": 1.0,
            "first_warm_seconds": 2.0,
            "threads": 2,
            "affinity": [0, 1],
        }

    settings = Settings("train", "quicknet", 128, 5, 2, ("eager_nchw", "eager_channels_last"))
    sides = {
        OURS: side(0.5, 600.0) | {"first_cold_seconds": 31.0},
        "eager_nchw": side(2.0, 1200.0),
        "eager_channels_last": side(0.75, 800.0),
        "compile_channels_last": {"failed": "no compiler"},
    }
    found = {**judging.judge(sides, settings), "sides": sides}
    assert found["best_mode"] == "eager_channels_last"
    found = {f"train_{n}" if n.startswith("ratio") else n: v for n, v in found.items()}
    met = [v.met for v in judging.judged(found, "quicknet")]
    assert met == [False, False, False, True]  # 1.5 of 2, 0.75 of 0.7, 31 s of 30, 2 s of 3
    assert judging.judged(found, "plain_cnn")[0].met
    found |= settings._asdict()
    rows = peer_tables.table(found, "t").rows
    assert rows[0][-4:] == ["31.0 s", "2.0 s", "2", "0, 1"]
    assert rows[-1] == ["compile_channels_last", "failed"]
    assert peer_tables.failures(found) == ["no compiler"]


# --- inference ------------------------------------------------------------------------------


def _sides(**seconds: float) -> dict[str, dict[str, Any]]:
    return {
        name: {
            "seconds": [s * turn for turn in (1.0, 1.1, 0.9, 1.0, 1.2)],
            "peak_memory": 100.0,
            "imported_memory": 1.0,
            "first_warm_seconds": 2.0,
            "threads": 2,
            "affinity": [0, 1],
            "values": [[[0.0]]],
        }
        for name, s in seconds.items()
    }


def test_each_precision_is_held_against_its_own_best_rival() -> None:
    seconds = {OURS: 4.0, PLAN: 2.0, INT8: 1.0, "eager_nchw": 8.0, "openvino_float32": 3.0}
    sides = _sides(**seconds, openvino_int8=1.5, onnxruntime_int8=1.2)
    found = judging.judge(sides, INFER)
    assert (found["best_mode"], found["int8_best_mode"]) == ("openvino_float32", "onnxruntime_int8")
    assert found["ratio"] == pytest.approx(1.5)  # the plan, not the module
    assert found["int8_ratio"] == pytest.approx(1.2)
    assert found["int8_gain"]["median"] == pytest.approx(2.0)
    ratios = {name: side["ratio"]["median"] for name, side in sides.items() if "ratio" in side}
    assert ratios == pytest.approx(
        {
            OURS: 2.0,
            "eager_nchw": 4.0,
            "openvino_float32": 1.5,
            "openvino_int8": 1.5,
            "onnxruntime_int8": 1.2,
        }
    )
    verdicts = judging.judged_inference({128: found, 1: found}, {})
    assert [(v.what.split(" against")[0], v.asked, v.met) for v in verdicts] == [
        ("float32, batch 128", "1.25x", True),
        ("int8, batch 128", "1.25x", False),
        ("int8 over minidnn's own float32, batch 128", "reported", True),
        ("float32, batch 1", "1.30x", True),
        ("int8, batch 1", "1.30x", False),
        ("int8 over minidnn's own float32, batch 1", "reported", True),
    ]


def test_without_a_plan_the_module_stands_in_and_what_is_unmeasured_is_not_met() -> None:
    found = judging.judge(_sides(**{OURS: 2.0}, eager_nchw=1.0, openvino_int8=0.1), INFER)
    assert (found["best_mode"], found["ratio"]) == ("eager_nchw", 0.5)
    assert "int8_ratio" not in found
    assert "int8_gain" not in found
    float32, int8 = judging.judged_inference({1: found}, {})
    assert (float32.got, float32.met) == ("0.50x (0.50 to 0.50)", False)
    assert (int8.what, int8.got, int8.met) == ("int8, batch 1", "not measured", False)
    alone = judging.judge(_sides(**{OURS: 2.0}), INFER)
    assert [v.got for v in judging.judged_inference({128: alone}, {})] == ["not measured"] * 2


def _calls(p50: float, late: float, rounds: int = 5) -> list[dict[str, Any]]:
    quick = {"p50": p50, "p95": p50, "p99": p50, "mean": p50, "calls": 200}
    return [{"back_to_back": quick, "paced": {**quick, "p99": late}}] * rounds


@pytest.mark.parametrize(
    ("ours", "theirs", "met"),
    [((1.0, 1.5), (9.0, 0.1), True), ((1.0, 1.6), (0.1, 1.7), True), ((1.0, 1.6), (1, 1.5), False)],
)
def test_late_calls_count_against_calls_back_to_back_or_openvino(
    ours: tuple[float, float], theirs: tuple[float, float], met: bool
) -> None:
    gaps = judging.judge_gaps({OURS: _calls(*ours), "openvino_float32": _calls(*theirs)})
    assert gaps[OURS]["idle"]["median"] == pytest.approx(ours[1] / ours[0])
    assert gaps[OURS]["against"]["median"] == pytest.approx(theirs[1] / ours[1])
    assert "against" not in gaps["openvino_float32"]
    (verdict,) = judging.judged_gaps(gaps)
    assert verdict.met == met
    assert verdict.what.startswith("float32, batch 1: p99")


def test_late_calls_of_each_precision_are_judged_and_of_the_plan_rather_than_the_module() -> None:
    rounds = {OURS: _calls(1, 9), PLAN: _calls(1, 1.2), INT8: _calls(1, 3)}
    gaps = judging.judge_gaps(rounds | {"openvino_int8": _calls(1, 2)})
    assert "against" not in gaps[PLAN]
    assert gaps[INT8]["against"]["median"] == pytest.approx(2 / 3)
    float32, int8 = judging.judged_gaps(gaps)
    assert (float32.got, float32.met) == ("1.20x", True)
    assert (int8.got, int8.met) == ("3.00x; OpenVINO's is 0.67x ours", False)


def test_a_late_call_counts_by_the_round_that_most_rounds_are_like() -> None:
    once = _calls(1, 1.2, 4) + _calls(1, 50.0, 1)
    assert judging.judge_gaps({OURS: once})[OURS]["idle"]["median"] == pytest.approx(1.2)


def test_the_page_shows_inference_with_its_rivals_gaps_and_reasons() -> None:
    sides = _sides(**{OURS: 2.0}, openvino_int8=1.0)
    sides["openvino_int8"] |= {"how": "nncf", "largest_error": 0.0512, "same_class": 0.995}
    batch = {**judging.judge(sides, INFER), "sides": sides | {"openvino_float32": {"failed": "no"}}}
    gaps = judging.judge_gaps({OURS: _calls(0.002, 0.004), "openvino_float32": _calls(1, 1)})
    found = {
        **INFER._asdict(),
        **machine.surroundings(2, ["numpy"]),
        "batches": {"128": batch, "1": batch},
        "gaps": gaps,
        "verdicts": [v._asdict() for v in judging.judged_inference({1: batch}, gaps)],
    }
    text = report.section(report.PARTS["infer"], json.loads(json.dumps(found)))
    assert text.startswith("## Inference with QuickNet\n\n`python -m bench.peers infer`, 2")
    assert text.index("**asked for**") < text.index("**infer, quicknet, batch 128, 5 rounds**")
    assert "| nncf; logits up to 5.1% off float32's, 99.5% the same class |" in text
    assert "| openvino_float32 | failed |" in text
    assert text.count("```\nno\n```") == 1
    assert "**one picture, 200 single calls a round, medians of rounds**" in text
    assert "| minidnn | 2.00 | 2.00 | 2.00 | 2.00 | 2.00 | 4.00 | 2.00 (2.00 to 2.00) |" in text


# --- no unequal rivals ----------------------------------------------------------------------


def test_a_rival_that_trains_another_network_is_refused() -> None:
    judging.check_same("torch", [2.3, 2.1], [2.3001, 2.1001], "losses")
    for ours, theirs, step in (
        ([2.3, 2.1], [2.3, 2.2], 1),
        ([math.nan], [2.3], 0),
        ([2.3], [math.nan], 0),
        ([[1.0, math.nan]], [[1.0, 2.0]], 0),
        ([[1.0]], [[1.0, 2.0]], 0),
    ):
        with pytest.raises(SystemExit, match=rf"torch do not compute the same.* of step {step}"):
            judging.check_same("torch", ours, theirs, "losses")


def test_a_quantised_rival_is_near_and_says_how_near() -> None:
    ours = [[[1.0, 2.0], [4.0, 3.0]], [[0.0, 1.0]]]
    near = judging.check_near("q", ours, [[[1.0, 2.2], [3.0, 3.2]], [[0.0, 1.0]]])
    assert near["largest_error"] == pytest.approx(0.25)
    assert near["same_class"] == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("theirs", "message"),
    [
        ([[[0.0, 0.0], [0.0, 0.0]]], "no quantised version of the same network"),
        ([[[2.0, 1.9], [3.0, 3.1]]], "0% of the pictures"),
        ([[[1.0, math.nan], [4.0, 3.0]]], "up to nan"),
        ([[[1.0, 2.0]]], "expected 4 logits as float32 gives, got 2"),
    ],
)
def test_a_quantised_rival_that_is_another_network_is_refused(
    theirs: list[Any], message: str
) -> None:
    with pytest.raises(SystemExit, match=message):
        judging.check_near("q", [[[1.9, 2.0], [4.0, 3.9]]], theirs)


def test_a_rival_whose_package_is_missing_is_left_out_with_a_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert contenders.missing(OURS) is None
    needs = ("numpy", "no_such_engine", "nor_this")
    monkeypatch.setitem(contenders.PEERS, "openvino_int8", Peer("x", needs=needs, engine=True))
    assert contenders.missing("openvino_int8") == (
        "openvino_int8 is left out: it needs no_such_engine and nor_this, not installed; "
        "try: python -m pip install '.[peers]'"
    )


def test_minidnn_takes_part_in_every_way_that_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    assert contenders.ours("train") == (OURS,)
    for names, expected in ((["compile"], (OURS, PLAN)), (["quantize"], (OURS, PLAN, INT8))):
        monkeypatch.setattr("minidnn.__all__", names)
        assert contenders.ours("infer") == expected


# --- engines --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("batch", "threads", "expected"),
    [
        (1, 2, [1]),
        (128, 2, [1, 2, 4, 8, 16, 32, 64, 128]),
        (12, 1, [1, 2, 4]),
        (128, 3, [1]),
        (7, 2, [1]),
    ],
)
def test_a_batch_is_cut_into_equal_requests(batch: int, threads: int, expected: list[int]) -> None:
    assert side_engine.cuts(batch, threads) == expected


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> side_engine.Engine:
    """Return an engine whose files' names say how many seconds a batch takes."""
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setattr(side_engine, "AT_LEAST", 0.0)
    monkeypatch.setattr(recipe, "PICTURES", 16)

    def load(
        file: Path, requests: int, batches: Sequence[Any], threads: int
    ) -> side_engine.Network:
        def infer(number: int) -> Any:
            time.sleep(float(file.stem) / requests)
            return batches[number].sum(axis=(1, 2, 3))

        return side_engine.Network(infer, threads, f"{file.stem}, {requests}")

    def ways(precision: str, batch: int, threads: int) -> list[side_engine.Way]:
        assert (precision, batch, threads) == ("int8", 2, 3)
        return [side_engine.Way(*way) for way in (("0.0.x", 1), ("0.2.x", 1), ("0.2.x", 100))]

    return side_engine.Engine(load, ways, "int8")


def test_an_engine_runs_the_fastest_way_among_files_that_are_there(
    engine: side_engine.Engine, tmp_path: Path
) -> None:
    (tmp_path / "0.2.x").touch()
    assert engine.tune(files=str(tmp_path), batch=2) == ("0.2.x", 100)
    (tmp_path / "0.0.x").touch()
    assert engine.tune(files=str(tmp_path), batch=2) == ("0.0.x", 1)


def test_an_engine_sees_the_pictures_that_all_see(
    engine: side_engine.Engine, tmp_path: Path
) -> None:
    found = [engine.first(files=str(tmp_path), batch=2, way=["0.0.x", 1], what="infer")]
    found += [engine.run() for _ in range(recipe.BATCHES)]
    batches = recipe.pictures(2).batches
    expected = [images.sum(axis=(1, 2, 3)) for images, _ in [*batches, batches[0]]]
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    about = engine.about()
    assert (about["threads"], about["how"]) == (3, "0.0, 1")
    assert about["affinity"] == machine.affinity()


def test_pictures_to_calibrate_on_are_not_among_those_timed() -> None:
    timed = np.concatenate([images for images, _ in recipe.pictures(128).batches])
    drawn = recipe.calibration_pictures()
    assert drawn.shape == (recipe.CALIBRATION, *timed.shape[1:])
    seen = {image.tobytes() for image in timed}
    assert not any(image.tobytes() in seen for image in drawn)


def test_single_calls_are_timed_with_and_without_gaps() -> None:
    calls = []
    found = side.latencies(lambda: calls.append(1), calls=7, gap=0.001)
    assert list(found) == ["back_to_back", "paced"]
    assert all(part["calls"] == 7 and part["p50"] <= part["p99"] for part in found.values())
    assert len(calls) > 14  # some to warm up


# --- the command, and runs in small ----------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fly"], "invalid choice: 'fly'"),
        (["train", "--rounds", "4"], "--rounds: a median with its spread needs at least 5"),
        (["train", "--batch", "0"], "--batch: expected at least 1"),
        (["train", "--modes", "fast"], "invalid choice: 'fast'"),
        (["train", "--modes", "openvino_int8"], "--modes: openvino_int8 infers only"),
        (["infer", "--calls", "0"], "--calls: expected at least 1"),
    ],
)
def test_a_wrong_command_line_is_an_error_in_words(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        peers.parse(arguments)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_training_and_inference_have_their_own_modes() -> None:
    assert peers.parse(["train"])[0].modes == contenders.TRAINING_MODES
    modes = peers.parse(["infer"])[0].modes
    assert set(modes) > {*contenders.TRAINING_MODES, "openvino_int8", "onnxruntime_float32"}
    assert peers.parse(["infer", "--modes", "eager_nchw"])[0].modes == ("eager_nchw",)


def test_a_small_comparison_of_training(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch")
    monkeypatch.setitem(contenders.PEERS, "compile_nchw", Peer("bench.no_such_side", spare=True))
    settings, _ = peers.parse(
        ["train", "--batch", "4", "--no-cold", "--turn", "0", "--threads", "1"]
    )
    settings = settings._replace(modes=("eager_channels_last", "compile_nchw"))
    found = json.loads(json.dumps(peers.train(settings)))
    assert next(iter(found)) == "train_ratio"
    assert found["train_ratio"] > 0
    assert "No module" in found["sides"]["compile_nchw"]["failed"]
    assert "going on without compile_nchw" in capsys.readouterr().err
    for name in (OURS, "eager_channels_last"):
        side = found["sides"][name]
        assert len(side["seconds"]) == settings.rounds
        assert side["threads"] == 1
        assert side["peak_memory"] > side["imported_memory"] > 10


def test_a_small_comparison_of_inference(monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("onnx", "onnxruntime", "openvino"):
        pytest.importorskip(package)
    absent = Peer("bench.no_such_side", needs=("no_such_engine",), engine=True, spare=True)
    monkeypatch.setitem(contenders.PEERS, "onnxruntime_int8", absent)
    settings, _ = peers.parse(
        ["infer", "--batch", "1", "--no-cold", "--turn", "0", "--threads", "1", "--calls", "2"]
    )
    modes = ("openvino_float32", "openvino_int8", "onnxruntime_float32", "onnxruntime_int8")
    found = json.loads(json.dumps(peers.infer(settings._replace(modes=modes))))
    assert next(iter(found)) == "infer_ratio"
    assert list(found["batches"]) == ["1"]
    sides = found["batches"]["1"]["sides"]
    assert "no_such_engine" in sides["onnxruntime_int8"]["failed"]
    for name in (OURS, PLAN, *modes[:-1]):
        assert len(sides[name]["seconds"]) == settings.rounds
        assert sides[name]["threads"] == 1
    assert sides["openvino_int8"]["largest_error"] > 0
    assert {OURS, PLAN, "openvino_float32", "openvino_int8"} <= set(found["gaps"])
    assert found["gaps"][PLAN]["against"]["median"] > 0
