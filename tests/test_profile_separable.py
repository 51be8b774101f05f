"""`minidnn profile-separable`: counts by hand, ratios from known times, sentences, exit codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from minidnn.cli import main
from minidnn.errors import InputError
from minidnn.kernels.ladder import load_all
from minidnn.measure import peaks, rivals, separable, separable_report, timing
from minidnn.measure.peaks import Peaks
from minidnn.measure.ratios import Ratio
from minidnn.measure.separable import FASTEST, Layer, calls, counts, draw, layers
from minidnn.measure.shapes import CLASSROOM, QUICKNET, Map

PEAKS = Peaks(flops=1e11, bandwidth=1e10, by_isa={}, by_set={}, threads=2)
LAYER = Layer(28, 64, 128, times=1)
(TINY,) = layers(CLASSROOM)
SECONDS = {
    "depthwise.forward": 1.0,
    "pointwise.forward": 3.0,
    "conv2d.forward": 16.0,
    "depthwise.backward": 2.0,
    "pointwise.backward_input": 4.0,
    "pointwise.backward_weight": 6.0,
    "conv2d.backward_input": 10.0,
    "conv2d.backward_weight": 14.0,
    "relu": 1.0,
    "leaky_relu": 2.0,
    "prelu": 3.0,
    "quicknet": 0.5,
    "plain_cnn": 2.0,
}


@pytest.fixture
def known_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every kernel run once, and take the seconds above."""

    def take_turns(actions: dict[str, Any], **_: Any) -> dict[str, list[float]]:
        for action in actions.values():
            action()
        return {name: [SECONDS[name]] * 3 for name in actions}

    monkeypatch.setattr(timing, "take_turns", take_turns)
    monkeypatch.setattr(peaks, "known_peaks", lambda: PEAKS)


# --- counts ------------------------------------------------------------------------------


def test_macs_and_parameters_are_the_closed_forms() -> None:
    few, many = (counts(LAYER, 5, full=full, forward=True) for full in (False, True))
    assert few.macs == 784 * 64 * 9 + 784 * 64 * 128 == 6_874_112
    assert many.macs == 784 * 64 * 128 * 9 == 57_802_752
    assert (few.parameters, many.parameters) == (64 * 9 + 64 * 128, 64 * 128 * 9)
    back = [counts(LAYER, 5, full=full, forward=False).macs for full in (False, True)]
    assert back == [2 * few.macs, 2 * many.macs]


def test_least_bytes_are_the_closed_forms() -> None:
    x, y = 2 * 784 * 64, 2 * 784 * 128
    expected = {
        (False, True): (x + 576 + x) + (x + 8192 + y),
        (True, True): x + 73_728 + y,
        (False, False): 2 * (y + 8192 + x) + (x + x + 576 + x + 576),
        (True, False): 2 * (y + 73_728 + x),
    }
    for (full, forward), numbers in expected.items():
        assert counts(LAYER, 2, full=full, forward=forward).least_bytes == 4 * numbers / 2


@pytest.mark.parametrize("layer", layers(QUICKNET), ids=lambda layer: layer.label)
def test_the_predicted_ratio_is_that_of_macs_and_parameters(layer: Layer) -> None:
    assert layer.predicted == 1 / layer.c_out + 1 / 3**2
    for forward in (True, False):
        few, many = (counts(layer, 1, full=full, forward=forward) for full in (False, True))
        assert few.macs / many.macs == pytest.approx(layer.predicted)
        assert few.parameters / many.parameters == pytest.approx(layer.predicted)


def test_the_layers_are_quicknets() -> None:
    found = layers(QUICKNET)
    assert sum(layer.times for layer in found) == 12
    macs = sum(x.times * counts(x, 1, full=False, forward=True).macs for x in found)
    assert macs == 127_863_040 - 3_763_200 - 10_240  # all but the stem and the head


@pytest.mark.parametrize("call", calls(TINY, 2), ids=lambda call: call.ladder)
def test_every_call_writes_what_is_counted(call: separable.Call) -> None:
    args = [draw([call])[key] for key in separable._keys(call)]
    assert len({id(a) for a in args}) == len(args)
    result = load_all()[call.ladder]["numpy"](*args, **call.settings)
    results = result if isinstance(result, tuple) else (result,)
    assert tuple(r.shape for r in results) == call.outputs
    moved = sum(a.nbytes for a in (*args, *results))
    assert call.least_bytes == moved


# --- times -------------------------------------------------------------------------------


@pytest.mark.usefixtures("known_times")
def test_ratios_follow_from_times() -> None:
    found = separable.measure(TINY, 4)
    assert {level: set(both) for level, both in found.items()} == {
        level: {"forward", "backward"} for level in ("naive", "numpy", FASTEST)
    }
    for level, images in (("naive", 1), ("numpy", 4), (FASTEST, 4)):
        forward, backward = found[level]["forward"], found[level]["backward"]
        assert (forward.separable, forward.full) == (4.0 / images, 16.0 / images)
        assert forward.depthwise == 1.0 / images
        assert forward.ratio == (0.25, 0.25, 0.25)
        assert (backward.separable, backward.full) == (12.0 / images, 24.0 / images)
        assert backward.ratio.median == 0.5


@pytest.mark.usefixtures("known_times")
def test_all_layers_count_as_often_as_there_are() -> None:
    found = {layer._replace(times=n): separable.measure(TINY, 1) for layer, n in ((TINY, 3),)}
    total = separable.whole(found, FASTEST, "forward")
    assert (total.separable, total.full, total.ratio) == (12.0, 48.0, 0.25)
    assert total.predicted == pytest.approx(TINY.predicted)


def test_the_sentence_names_rates_and_shares() -> None:
    macs = 784 * 64 * 128
    ratio = Ratio(0.25, 0.25, 0.25)
    found = separable.Pass(separable=4e-4, depthwise=1e-4, full=16e-4, ratio=ratio)
    text = separable.why(LAYER, "forward", found, 1, PEAKS)
    assert "0.250 measured, 0.119 predicted (2.1x the prediction)" in text
    assert "7% of separable's MACs and 25% of its time" in text
    rate = 4 * (2 * 784 * 64 + 576) / 1e-4 / 1e9
    assert f"({rate:.3g} GB/s, {rate / 10:.0%} of memory's rate)" in text
    assert f"multiplies at {2 * macs / 3e-4 / 1e9:.3g} GFLOP/s" in text
    assert f"full at {2 * 9 * macs / 16e-4 / 1e9:.3g} " in text
    close = found._replace(ratio=ratio._replace(median=LAYER.predicted * 1.05))
    assert "(as predicted)" in separable.why(LAYER, "forward", close, 1, PEAKS)


@pytest.mark.usefixtures("known_times")
def test_activations_are_compared_with_each_other_and_with_convolutions() -> None:
    convolutions = {TINY: separable.measure(TINY, 4)}
    found = rivals.activations(Map(6, 7), 4, convolutions, rounds=3)
    forward, backward = found["forward"], found["backward"]
    assert forward.seconds == {"relu": 0.25, "leaky_relu": 0.5, "prelu": 0.75}
    assert forward.prelu_over_leaky == (1.5, 1.5, 1.5)
    assert (forward.of_separable, forward.of_full) == (0.75, 0.75 / 4)
    assert forward.gbs["relu"] == pytest.approx(2 * 36 * 7 * 4 / 0.25 / 1e9)
    assert backward.gbs["prelu"] == pytest.approx(3 * 36 * 7 * 4 / 0.75 / 1e9)
    assert backward.of_separable == pytest.approx(0.75 / 3)
    alone = rivals.activations(Map(6, 5), 4, convolutions, rounds=3)["forward"]
    assert (alone.of_separable, alone.of_full) == (None, None)


@pytest.mark.usefixtures("known_times")
def test_networks_are_compared_end_to_end() -> None:
    found = rivals.end_to_end(4, small=True, rounds=3)
    stem, head = 36 * 5 * 75, 7 * 10
    few, many = stem + 36 * 5 * (9 + 7) + head, stem + 36 * 5 * 9 * 7 + head
    assert set(found) == {"training", "inference"}
    for one in found.values():
        assert one.rates == {"quicknet": 8.0, "plain_cnn": 2.0}
        assert one.ratio.median == 0.25
        assert one.predicted == pytest.approx(few / many)


# --- the command -------------------------------------------------------------------------


@pytest.mark.usefixtures("known_times")
def test_json_holds_counts_times_and_reasons(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "separable.json"
    command = ["profile-separable", "--size", "classroom", "--batch", "4", "--json"]
    assert main([*command, "-o", str(file)]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result == json.loads(file.read_text(encoding="utf-8"))
    assert result["minidnn"] == "profile-separable"
    assert result["batches"] == {"naive": 1, "numpy": 4, "fastest": 4}
    (layer,) = result["layers"]
    assert (layer["layer"], layer["predicted"]) == ("6x6x5->7", 1 / 7 + 1 / 9)
    assert layer["counts"]["separable"]["forward"]["macs"] == 36 * 5 * (9 + 7)
    assert layer["counts"]["full"]["backward"]["macs"] == 2 * 36 * 5 * 7 * 9
    assert layer["levels"]["fastest"]["forward"]["ratio"] == [0.25, 0.25, 0.25]
    assert set(layer["why"]) == {"forward", "backward"}
    assert result["all_layers"]["numpy"]["backward"]["ratio"] == 0.5
    assert [one["map"] for one in result["activations"]] == ["6x6x5"]
    assert result["networks"]["training"]["rates"] == {"quicknet": 8.0, "plain_cnn": 2.0}


@pytest.mark.usefixtures("known_times")
def test_tables_and_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    file = tmp_path / "separable.png"
    assert main(["profile-separable", "--size", "classroom", "--plot", str(file)]) == 0
    text = capsys.readouterr().out
    assert "6x6x5->7" in text
    assert "0.254" in text  # 1/7 + 1/9
    assert "Why measured and predicted differ" in text
    assert file.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--quik"], "did you mean '--quick'?"),
        (["--size", "clasroom"], "did you mean 'classroom'?"),
        (["--batch", "0"], "at least 1"),
        (["--batch", "100000000"], "of memory"),
        (["--batch", "many"], "invalid int"),
    ],
)
@pytest.mark.usefixtures("known_times")
def test_bad_input_is_one_line(
    options: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["profile-separable", *options]) == 2
    out, err = capsys.readouterr()
    assert expected in err
    assert err.count("\n") == 1
    assert not out


def test_what_would_take_too_long_is_refused_with_the_estimate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(separable_report, "check_memory", lambda *_: None)
    slow = PEAKS._replace(flops=1e6)
    with pytest.raises(InputError, match="would take about"):
        separable_report.profile(slow)
