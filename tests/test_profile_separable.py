"""`minidnn profile-separable`: counts by hand, ratios from known times, sentences, exit codes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from minidnn.cli import main
from minidnn.errors import InputError
from minidnn.kernels.ladder import load_all
from minidnn.measure import peaks, rivals, separable, separable_plot, separable_report, timing
from minidnn.measure.peaks import Peaks
from minidnn.measure.ratios import Ratio
from minidnn.measure.separable import FASTEST, Layer, calls, counts, draw, layers
from minidnn.measure.separable_report import Profile
from minidnn.measure.shapes import CLASSROOM, QUICKNET, Map

PEAKS = Peaks(flops=1e11, bandwidth=1e10, by_isa={}, by_set={}, threads=2)
LAYER = Layer(28, 64, 128, times=1)
(TINY,) = layers(CLASSROOM)
CLASSROOM_RUN = ("--size", "classroom", "--batch", "4")
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


@contextmanager
def _known_times() -> Iterator[None]:
    """Let every kernel run once inside, and take the seconds above."""

    def take_turns(actions: dict[str, Any], **_: Any) -> dict[str, list[float]]:
        for action in actions.values():
            action()
        return {name: [SECONDS[name]] * 3 for name in actions}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timing, "take_turns", take_turns)
        patch.setattr(peaks, "known_peaks", lambda: PEAKS)
        yield


@pytest.fixture
def known_times() -> Iterator[None]:
    """Let every kernel take the seconds above."""
    with _known_times():
        yield


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
    assert "not done" not in text
    beyond = found._replace(full=2 * 9 * macs / (1.1 * PEAKS.flops))
    assert "(110%, for products with the zeros" in separable.why(LAYER, "forward", beyond, 1, PEAKS)


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
    command = ["profile-separable", *CLASSROOM_RUN, "--json"]
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


# --- from a file ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Return what the command writes."""
    file = tmp_path_factory.mktemp("results") / "separable.json"
    with _known_times():
        assert main(["profile-separable", *CLASSROOM_RUN, "-o", str(file)]) == 0
    return file.read_bytes()


@pytest.fixture
def saved(written: bytes, tmp_path: Path) -> Path:
    """Return a file that the command wrote."""
    file = tmp_path / "saved.json"
    file.write_bytes(written)
    return file


@pytest.fixture(scope="module")
def measured() -> Profile:
    """Return the profile in that file."""
    with _known_times():
        return separable_report.profile(PEAKS, size="classroom", batch=4)


def test_a_profile_survives_its_file(saved: Path, measured: Profile) -> None:
    through = json.loads(json.dumps(measured.as_dict()))
    assert Profile.from_dict(through) == measured
    found, result = separable_report.read(saved)
    assert found == measured
    assert json.loads(json.dumps(found.as_dict())) == through
    assert through.items() <= result.items()


@pytest.fixture
def nothing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every measurement fail."""

    def fail(*_: Any, **__: Any) -> Any:
        raise AssertionError("measures")

    monkeypatch.setattr(timing, "take_turns", fail)
    monkeypatch.setattr(peaks, "known_peaks", fail)


def test_from_shows_and_draws_what_was_measured(
    saved: Path,
    nothing_runs: None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("matplotlib")
    del nothing_runs
    picture = tmp_path / "again.png"
    assert main(["profile-separable", "--from", str(saved), "--plot", str(picture)]) == 0
    text = capsys.readouterr().out
    result = json.loads(saved.read_text(encoding="utf-8"))
    assert separable_report.place(result["machine"]).encode() in picture.read_bytes()
    assert "6x6x5->7" in text
    assert result["machine"]["cpu"] in text
    assert result["machine"]["date"] in text
    assert picture.read_bytes().startswith(b"\x89PNG")
    for kind in ("svg", "pdf", "jpg"):
        drawn = picture.with_suffix(f".{kind}")
        assert main(["profile-separable", "--from", str(saved), "--plot", str(drawn)]) == 0
        assert drawn.stat().st_size > 1000
    capsys.readouterr()
    assert main(["profile-separable", "--from", str(saved), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == result


def _put(result: Any, place: str, value: Any) -> None:
    *path, last = [int(key) if key.isdigit() else key for key in place.split(".")]
    for key in path:
        result = result[key]
    if value is KeyError:
        del result[last]
    else:
        result[last] = value


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("minidnn", "ladder", "expected a result of `minidnn profile-separable`, got 'ladder'"),
        ("version", 99, "expected version 1 of the file, got 99"),
        ("batch", KeyError, "'batch' is missing"),
        ("batch", 2.5, "batch: expected a whole number, got 2.5"),
        ("quick", "no", "quick: expected true or false, got 'no'"),
        ("layers", [], "layers: expected a list, got []"),
        ("layers", {"a": 1}, "layers: expected a list"),
        ("layers.0.c_out", 0, "layers[0]: c_out: expected a finite number above 0, got 0"),
        ("layers.0.levels.naive", KeyError, "layers[0]: levels: 'naive' is missing"),
        ("layers.0.levels.numpy.backward.full", float("nan"), "expected a finite number above 0"),
        ("layers.0.levels.numpy.backward.full", "1", "full: expected a number, got '1'"),
        ("layers.0.levels.numpy.backward.full", True, "full: expected a number, got True"),
        ("layers.0.levels.numpy.backward.ratio", [1, 2], "ratio: expected 3 entries, got [1, 2]"),
        ("layers.0.levels.numpy.backward", None, "backward: expected an object with 'separable'"),
        ("activations.0.forward.of_full", "x", "of_full: expected a number, got 'x'"),
        ("networks.training.rates.quicknet", -1, "quicknet: expected a finite number above 0"),
        ("peaks", {"flops": 1}, "peaks: expected the peaks of a machine"),
        ("peaks", 3, "peaks: expected the peaks of a machine, got 3"),
        ("machine", KeyError, "'machine' is missing"),
        ("machine.cpu", 7, "cpu: expected a text, got 7"),
        ("machine.date", "", "date: expected a text, got ''"),
        ("machine.threads", "two", "threads: expected a whole number, got 'two'"),
        ("machine.affinity", "all", "affinity: expected a list of CPUs, got 'all'"),
        ("machine.versions", None, "versions: expected versions by package, got None"),
    ],
)
def test_a_file_that_was_tampered_with_is_one_line(
    place: str,
    value: Any,
    message: str,
    saved: Path,
    nothing_runs: None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("matplotlib")
    del nothing_runs
    result = json.loads(saved.read_text(encoding="utf-8"))
    _put(result, place, value)
    saved.write_text(json.dumps(result), encoding="utf-8")
    picture = tmp_path / "again.svg"
    assert main(["profile-separable", "--from", str(saved), "--plot", str(picture)]) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert str(saved) in err
    assert err.count("\n") == 1
    assert not out
    assert not picture.exists()


@pytest.mark.parametrize(
    "data", [b"", b"{", b"\xff", b"[" * 100_000, b"9" * 10_000, b"[]", b"3", b"null"]
)
def test_what_is_no_result_is_one_line(
    data: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file.json"
    file.write_bytes(data)
    assert main(["profile-separable", "--from", str(file)]) == 2
    err = capsys.readouterr().err
    assert f"{file}: expected " in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--quick"], "leave out --quick"),
        (["--batch", "4"], "leave out --batch"),
        (["--size", "stages"], "leave out --size"),
        (["-o", "out.json"], "leave out -o"),
    ],
)
def test_from_takes_no_options_of_a_measurement(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["profile-separable", "--from", "file.json", *options]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


# --- the picture and its caption -------------------------------------------------------------


def test_the_picture_shows_the_times_and_both_ratios(measured: Profile) -> None:
    layer, total, network = separable_plot.groups(measured, "backward")
    assert (layer.label, layer.predicted) == ("6x6, 5->7", TINY.predicted)
    assert [line.level for line in layer.lines] == ["naive", "numpy", FASTEST]
    naive, numpy, _ = layer.lines
    assert naive[1:] == (12.0, 24.0, 0.5, TINY.predicted)
    assert (numpy.separable, numpy.full) == (3.0, 6.0)
    assert (total.label, total.lines[0].full) == ("all layers (1)", 24.0)
    (line,) = network.lines
    assert (line.separable, line.full, line.ratio) == (0.125, 0.5, 0.25)
    assert line.predicted == measured.networks["training"].predicted


def test_the_caption_tells_the_sums_and_the_machine(measured: Profile) -> None:
    machine = {"cpu": "a CPU", "threads": 2, "date": "2026-01-31T10:00:00"}
    text = separable_report.caption(measured, machine)
    assert text.startswith("All separable layers together (1) do ")
    assert f"do {1 / 7 + 1 / 9:.3f} of the multiply-accumulates" in text
    assert "0.250 of their time forward and 0.500 backward in the fastest rungs" in text
    assert "0.250 and 0.500 in naive loops" in text
    assert "trains 4.0 times as fast" in text
    assert text.endswith("4.0 times as fast at inference. a CPU, 2 threads, 2026-01-31.")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--quik"], "did you mean '--quick'?"),
        (["--size", "clasroom"], "did you mean 'classroom'?"),
        (["--batch", "0"], "at least 1"),
        (["--batch", "100000000"], "of memory"),
        (["--batch", "many"], "invalid int"),
        (["--plot", "no/folder.png"], "there is no folder no"),
        (["-o", "no/folder.json"], "there is no folder no"),
        (["--from", "no-such-file.json"], "No such file"),
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


@pytest.mark.parametrize("command", [["profile-separable"], ["ladder", "relu"], ["roofline"]])
def test_pictures_of_unknown_kinds_are_refused_at_once(
    command: list[str], nothing_runs: None, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    del nothing_runs
    assert main([*command, "--plot", "picture.xyz"]) == 2
    out, err = capsys.readouterr()
    assert "expected a picture such as picture.png or .svg" in err
    assert err.count("\n") == 1
    assert not out


def test_what_would_take_too_long_is_refused_with_the_estimate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(separable_report, "check_memory", lambda *_: None)
    slow = PEAKS._replace(flops=1e6)
    with pytest.raises(InputError, match="would take about"):
        separable_report.profile(slow)
