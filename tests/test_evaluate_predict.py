"""Evaluation against counts by hand, and what `evaluate`, `predict` and the others print."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minidnn import Module, Tensor, cli, plots
from minidnn.data import Batches, Dataset
from minidnn.errors import MissingExtraError
from minidnn.evaluation import evaluate, predict, softmax, views
from minidnn.threads import num_threads, set_num_threads
from tests.tiny_runs import CLASSES, write_config, write_pictures


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Keep tiny runs quick on a busy machine; one test of its own varies the threads."""
    before = num_threads()
    set_num_threads(1)
    yield
    set_num_threads(before)


class _Fixed(Module):
    """Logits that a test chooses, image by image, found by the image's first pixel."""

    def __init__(self, logits: Any) -> None:
        super().__init__()
        self.logits = np.asarray(logits, np.float32)

    def forward(self, x: Tensor) -> Tensor:
        assert not self.training
        return Tensor(self.logits[np.rint(x.data[:, 0, 0, 0] * 255).astype(int)])


def _numbered(labels: list[int]) -> Batches:
    n = len(labels)
    images = np.repeat(np.arange(n, dtype=np.uint8), 12).reshape(n, 2, 2, 3)
    dataset = Dataset(images, np.asarray(labels, np.int64), list(CLASSES), "numbers")
    none, one = np.zeros(3, np.float32), np.ones(3, np.float32)
    return Batches(dataset, batch_size=2, mean=none, std=one, shuffle=False)


def test_evaluation_agrees_with_counting_by_hand() -> None:
    logits = [[2, 0, 0], [0, 3, 0], [1000, 0, 0], [0, 0, 1], [5, 0, 0]]
    model = _Fixed(logits)
    model.train()
    result = evaluate(model, _numbered([0, 1, 1, 2, 0]))
    assert model.training
    assert result.confusion.tolist() == [[2, 0, 0], [1, 1, 0], [0, 0, 1]]
    assert (result.correct, result.images, result.accuracy) == (4, 5, 0.8)
    each = [math.log(1 + 2 * math.exp(-a)) for a in (2, 3, 1, 5)] + [1000]
    assert result.loss == pytest.approx(sum(each) / 5, rel=1e-12)
    assert result.recall().tolist() == [1, 0.5, 1]
    assert result.precision().tolist() == [2 / 3, 1, 1]


def test_a_class_without_pictures_has_no_share() -> None:
    result = evaluate(_Fixed([[1, 0, 0]]), _numbered([0]))
    assert np.isnan(result.recall()[1:]).all()
    assert np.isnan(result.precision()[1:]).all()


def test_probabilities_sum_to_one_however_large_the_logits() -> None:
    p = softmax(np.asarray([[1e4, -1e4, 0], [0.5, 0.25, -3]], np.float32))
    assert p.sum(axis=1) == pytest.approx([1, 1], abs=1e-12)


def test_six_views_are_shifts_by_a_pixel_and_mirrors() -> None:
    x = np.random.default_rng(0).standard_normal((2, 5, 4, 3)).astype(np.float32)
    every = list(views(x))
    assert sum(weight for weight, _ in every) == 1
    assert [weight for weight, _ in every] == [0.25, 0.125, 0.125] * 2
    assert np.array_equal(every[0][1], x)
    assert np.array_equal(every[3][1], x[:, :, ::-1])
    assert np.array_equal(every[1][1][:, 1:, 1:], x[:, :-1, :-1])
    assert np.array_equal(every[1][1][:, 0, 1:], x[:, 1, :-1])  # reflected
    assert np.array_equal(every[2][1][:, :-1, :-1], x[:, 1:, 1:])
    assert all(view.flags.c_contiguous for _, view in every)


class _Mean(Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean(axis=(1, 2))


def test_averaging_over_views_averages_the_logits() -> None:
    x = np.random.default_rng(0).standard_normal((2, 5, 4, 3)).astype(np.float32)
    want = sum(weight * view.mean(axis=(1, 2)) for weight, view in views(x))
    assert np.allclose(predict(_Mean(), x, tta=True), want, atol=1e-6)


# --- commands -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    config = write_config(folder)
    argv = ["--config", str(config), "--out", str(folder / "run"), "--progress", "none"]
    assert cli.main(["train", *argv, "--set", "epochs=2"]) == 0
    return folder / "run"


def _json(argv: list[str], capsys: pytest.CaptureFixture[str]) -> Any:
    capsys.readouterr()
    assert cli.main([*argv, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_evaluate_names_weights_data_and_classes(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["evaluate", str(run), "--tta"]) == 0
    out = capsys.readouterr().out
    assert "averaged (EMA) weights of best.safetensors" in out
    assert all(name in out for name in CLASSES)
    for line in ("accuracy: ", "averaged over six views: "):
        said = next(text for text in out.splitlines() if text.startswith(line))
        assert said.endswith("; tested on a random fifth of the pictures")
    if plots.available():
        assert (run / "confusion-test.png").read_bytes().startswith(b"\x89PNG")


def test_evaluate_measures_what_it_is_told_to(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ema = _json(["evaluate", str(run), "--weights", "last"], capsys)
    raw = _json(["evaluate", str(run), "--weights", "last", "--raw"], capsys)
    assert "weights of last.safetensors" in raw["weights"]
    assert "EMA" not in raw["weights"]
    assert raw["loss"] != ema["loss"]
    assert np.asarray(ema["confusion"]).sum() == ema["images"] == 38
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    val = _json(["evaluate", str(run), "--weights", "last", "--split", "val"], capsys)
    assert val["loss"] == log[-1]["val_loss"]
    assert val["accuracy"] == log[-1]["val_accuracy"]


@pytest.mark.filterwarnings("default::minidnn.checkpoint.CheckpointWarning")
def test_a_lost_best_gives_way_to_the_last_and_says_so(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    for file in copy.glob("best*"):
        file.write_bytes(b"not a checkpoint")
    assert cli.main(["evaluate", str(copy)]) == 0
    streams = capsys.readouterr()
    assert "last.safetensors instead" in streams.err
    assert "weights of last.safetensors" in streams.out


def test_other_classes_are_refused(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["evaluate", str(run), "--data", "shapes"]) == 2
    assert "was trained on the classes red, green, blue (3)" in capsys.readouterr().err


def test_other_pictures_need_not_be_as_many_as_the_runs(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = write_pictures(tmp_path / "few.npz", n=20)  # the run's own cut is of 30
    assert _json(["evaluate", str(run), "--data", str(few)], capsys)["images"] == 4


def test_ema_is_refused_where_there_is_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["--config", str(write_config(tmp_path)), "--out", str(tmp_path / "run")]
    assert cli.main(["train", *argv, "--set", "epochs=1", "--set", "ema=0"]) == 0
    assert cli.main(["evaluate", str(tmp_path / "run"), "--ema"]) == 2
    assert "was trained without an average" in capsys.readouterr().err


def test_predict_takes_any_size_and_says_what_it_did(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = pytest.importorskip("PIL.Image")
    for name, size in (("a.png", (16, 16)), ("b.jpg", (50, 37)), ("c.png", (3, 1))):
        image.new("RGB", size, (200, 40, 40)).save(tmp_path / name)
    paths = [str(tmp_path / name) for name in ("a.png", "b.jpg", "c.png")]
    predictions = _json(["predict", str(run), *paths], capsys)["predictions"]
    assert [p["image"] for p in predictions] == paths
    assert predictions[0]["resized"] == ""
    assert "50x37" in predictions[1]["resized"]
    for prediction in predictions:
        assert list(prediction["probabilities"]) == CLASSES
        assert sum(prediction["probabilities"].values()) == pytest.approx(1)
    assert cli.main(["predict", str(run), *paths, "--top", "2"]) == 0
    out = capsys.readouterr().out
    assert out.count("%") == 6
    assert f"{paths[1]} (50x37" in out


def test_predict_refuses_what_is_no_picture(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("PIL")
    (tmp_path / "x.png").write_text("no picture")
    for name in ("x.png", "missing.png"):
        assert cli.main(["predict", str(run), str(tmp_path / name)]) == 2
        assert name in capsys.readouterr().err


def test_curves_are_drawn_and_a_missing_extra_is_named(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    assert (run / "curves.png").read_bytes().startswith(b"\x89PNG")
    monkeypatch.setattr(plots, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'minidnn\[plot\]'"):
        plots.curves([], tmp_path / "x.png")


def test_warmup_says_what_it_compiled(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["warmup", "mlp", "--batch-size", "2"]) == 0
    out = capsys.readouterr().out
    assert "mlp: " in out
    assert "kernels compiled in" in out
    assert cli.main(["warmup", "mpl"]) == 2
    assert "did you mean 'mlp'?" in capsys.readouterr().err


def test_doctor_looks_at_everything(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor"]) == 0
    out = capsys.readouterr().out
    for word in ("python", "numba", "CPU", "features", "threads", "layer", "BLAS", "cache", "plot"):
        assert word in out
