"""The fit loop from Python: it learns, names what goes bad, and keeps its log and files honest."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minidnn import Module, Tensor, checkpoint, cli
from minidnn.config import Config, resolve
from minidnn.data import Dataset, Splits
from minidnn.errors import CheckpointError, ConfigError, NonFiniteError
from minidnn.finite import check_finite, first_bad_layer
from minidnn.models import build
from minidnn.optim import SGD, AdamW
from minidnn.rules import make_optimizer, make_schedule
from minidnn.runlog import read_log
from minidnn.runs import take_weights
from minidnn.threads import num_threads, set_num_threads
from minidnn.train import Observer, Trainer
from tests.tiny_runs import CLASSES, write_config, write_pictures

SMALL = {"model.stem": 4, "model.stages": [4], "model.blocks": 1, "model.dropout": 0.0}


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Keep tiny runs quick on a busy machine; one test of its own varies the threads."""
    before = num_threads()
    set_num_threads(1)
    yield
    set_num_threads(before)


def _pictures(n: int, seed: int = 0) -> Dataset:
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    images = rng.integers(0, 100, (n, 8, 8, 3))
    images[np.arange(n), :, :, labels] += 120
    return Dataset(images.astype(np.uint8), labels.astype(np.int64), list(CLASSES), "tints")


def _trainer(folder: Path, observer: Observer | None = None, **changes: Any) -> Trainer:
    values = {"data": "tints", "recipe": "standard", "epochs": 2, "batch_size": 8, "pad": 0}
    config = resolve({**values, "lr": 0.05, "log_steps": 4, **SMALL, **changes})
    arguments = {k: tuple(v) if isinstance(v, list) else v for k, v in config.arguments.items()}
    model = build(
        "quicknet", num_classes=3, input_shape=(8, 8, 3), rng=np.random.default_rng(1), **arguments
    )
    splits = Splits(_pictures(64), _pictures(21, 1), _pictures(21, 2))
    return Trainer(model, config, splits, folder, observer)


def test_it_learns_and_keeps_the_best_epoch(tmp_path: Path) -> None:
    trainer = _trainer(tmp_path / "run", epochs=4, report_test=True)
    assert trainer.fit() is True
    epochs = [r for r in read_log(tmp_path / "run" / "log.jsonl") if r["type"] == "epoch"]
    assert [r["epoch"] for r in epochs] == [1, 2, 3, 4]
    assert [r["step"] for r in epochs] == [8, 16, 24, 32]
    assert trainer.position.best_accuracy == max(r["val_accuracy"] for r in epochs) > 0.8
    assert all(math.isfinite(r[key]) for r in epochs for key in ("train_loss", "test_loss", "lr"))
    best = checkpoint.read(tmp_path / "run" / "best.safetensors")
    assert best.info["position"]["epoch"] == trainer.position.best_epoch
    assert best.info["preprocessing"]["classes"] == CLASSES


def test_averaged_weights_are_what_is_measured(tmp_path: Path) -> None:
    trainer = _trainer(tmp_path, ema=0.5)
    trainer.fit()
    assert trainer.ema is not None
    with trainer.ema.applied():
        averaged = {n: a.copy() for n, a in trainer.model.state_dict().items()}
    measured = trainer.measure(trainer.val_batches)
    trainer.ema = None
    trainer.model.load_state_dict(averaged)
    assert trainer.measure(trainer.val_batches).loss == measured.loss


def test_it_stops_when_nothing_gets_better(tmp_path: Path) -> None:
    trainer = _trainer(tmp_path, epochs=50, patience=1)
    assert trainer.fit() is True
    assert trainer.position.stopped_early
    assert trainer.position.epoch == trainer.position.best_epoch + 1 < 50


def test_a_checkpoint_is_there_before_the_first_step(tmp_path: Path) -> None:
    seen = []

    class Look(Observer):
        def first_step(self, seconds: float) -> None:
            seen.append(checkpoint.read(tmp_path / "last.safetensors").info["position"]["step"])

    _trainer(tmp_path, Look()).fit(should_stop=lambda: True)
    assert seen == [0]
    assert checkpoint.read(tmp_path / "last.safetensors").info["position"]["step"] == 1


def test_a_clock_makes_checkpoints_too(tmp_path: Path) -> None:
    saved = []

    class Look(Observer):
        def step(self, trainer: Trainer) -> None:
            saved.append(checkpoint.read(tmp_path / "last.safetensors").info["position"]["step"])

    _trainer(tmp_path, Look(), epochs=1, checkpoint_seconds=0.0).fit()
    assert saved == [0, 1, 2, 3, 4, 5, 6, 7]


def _break(trainer: Trainer, name: str, value: float) -> None:
    dict(trainer.model.named_parameters())[name].data.flat[0] = value


def test_a_loss_that_is_not_finite_stops_before_the_update(tmp_path: Path) -> None:
    class Poison(Observer):
        def step(self, trainer: Trainer) -> None:
            if trainer.position.step == 5:
                _break(trainer, "features.s1_1.conv.pointwise.weight", math.nan)

    trainer = _trainer(tmp_path, Poison())
    with pytest.raises(NonFiniteError, match=r"loss is nan at step 6") as caught:
        trainer.fit()
    assert "features.s1_1.conv.pointwise (PointwiseConv2d), whose" in str(caught.value)
    assert trainer.position.step == 5
    state = checkpoint.read(tmp_path / "last.safetensors")
    assert state.info["position"]["step"] == 0
    check_finite(state.arrays, "in the checkpoint")


def test_a_bad_weight_never_reaches_a_checkpoint(tmp_path: Path) -> None:
    class Poison(Observer):
        def step(self, trainer: Trainer) -> None:
            _break(trainer, "head.linear.bias", math.inf)

    trainer = _trainer(tmp_path, Poison())
    with pytest.raises(NonFiniteError, match=r"model\.head\.linear\.bias holds NaN or infinite"):
        trainer.fit(should_stop=lambda: True)
    check_finite(checkpoint.read(tmp_path / "last.safetensors").arrays, "in the checkpoint")


def test_a_diverging_rate_is_named_for_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteError, match=r"(?s)first bad output: .*lower lr than 1e\+30"):
        _trainer(tmp_path, lr=1e30, warmup=0.0).fit()


def test_nan_pixels_are_named(tmp_path: Path) -> None:
    trainer = _trainer(tmp_path)
    take: Callable[..., Any] = trainer.train_batches.take

    def bad(index: Any, epoch: int = 0) -> Any:
        x, labels = take(index, epoch)
        x[3, 0, 0, 0] = np.nan
        return x, labels

    trainer.train_batches.take = bad  # type: ignore[method-assign]
    with pytest.raises(NonFiniteError, match="image 3 of the batch holds NaN"):
        trainer.fit()


def test_first_bad_layer_is_silent_where_all_is_well(tmp_path: Path) -> None:
    trainer = _trainer(tmp_path)
    assert first_bad_layer(trainer.model, np.zeros((2, 8, 8, 3), np.float32)) is None


def test_a_folder_with_a_run_is_refused(tmp_path: Path) -> None:
    _trainer(tmp_path).fit(should_stop=lambda: True)
    with pytest.raises(CheckpointError, match="holds a run already"):
        _trainer(tmp_path).fit()


def test_other_data_is_refused(tmp_path: Path) -> None:
    _trainer(tmp_path).fit(should_stop=lambda: True)
    again = _trainer(tmp_path)
    other = replace(again.splits, val=_pictures(21, 9))
    again = Trainer(again.model, again.config, other, tmp_path)
    with pytest.raises(CheckpointError, match="the validation pictures are not those"):
        again.restore(checkpoint.read(tmp_path / "last.safetensors"))


def test_another_machine_is_noted_but_not_refused(tmp_path: Path) -> None:
    _trainer(tmp_path).fit(should_stop=lambda: True)
    state = checkpoint.read(tmp_path / "last.safetensors")
    assert _trainer(tmp_path).restore(state) == []
    state.info["machine"]["numpy"] = "1.0"
    assert "numpy was 1.0" in _trainer(tmp_path).restore(state)[0]


def test_a_start_that_failed_can_be_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise CheckpointError("no space left")

    trainer = _trainer(tmp_path, epochs=1)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", full)
        with pytest.raises(CheckpointError, match="no space"):
            trainer.fit()
    assert _trainer(tmp_path, epochs=1).fit()


@pytest.mark.parametrize(("n", "batch_size"), [(1, 1), (9, 4)])
def test_one_image_and_odd_batches_train(n: int, batch_size: int, tmp_path: Path) -> None:
    trainer = _trainer(tmp_path, batch_size=batch_size, epochs=1)
    splits = Splits(_pictures(n), _pictures(1), _pictures(1))
    trainer = Trainer(trainer.model, trainer.config, splits, tmp_path)
    assert trainer.fit()


# --- rules ------------------------------------------------------------------------------


def test_depthwise_kernels_norms_and_slopes_do_not_decay(tmp_path: Path) -> None:
    model = _trainer(tmp_path).model
    optimizer = make_optimizer(resolve({"recipe": "standard", **SMALL}), model)
    assert isinstance(optimizer, SGD)
    decaying = {name for name, p in model.named_parameters() if p.decay}
    assert decaying == {
        "features.stem.conv.weight",
        "features.s1_1.conv.pointwise.weight",
        "head.linear.weight",
    }


def test_every_optimiser_and_schedule_can_be_named(tmp_path: Path) -> None:
    model = _trainer(tmp_path).model
    for name in ("sgd", "adam", "adamw", "rmsprop"):
        make_optimizer(Config(optimizer=name), model).step()
    assert isinstance(make_optimizer(Config(optimizer="adamw"), model), AdamW)
    schedules = ("constant", "step", "cosine", "one_cycle", "polynomial", "linear", "keras_decay")
    for name in schedules:
        rate = make_schedule(Config(schedule=name, lr=0.2, step_epochs=1.0), 40, 10)
        assert 0.15 < max(rate(step) for step in range(40)) <= 0.2


def test_the_fast_schedule_rises_falls_and_keeps_a_share() -> None:
    config = resolve({"recipe": "fast"})
    rate = make_schedule(config, 1000, 100)
    assert rate(0) < 0.01 < rate(100) < rate(200) == config.lr
    assert rate(999) == pytest.approx(config.lr * 0.05, rel=0.05)


def test_warm_up_leaves_a_step_of_the_shortest_run() -> None:
    assert make_schedule(resolve({"recipe": "fast", "warmup": 1.0}), 1, 1)(0) > 0


# --- from other weights -------------------------------------------------------------------


def test_weights_are_taken_with_another_number_of_classes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, run, other = write_config(tmp_path), tmp_path / "run", tmp_path / "other"
    argv = ["train", "--config", str(config), "--set", "epochs=1"]
    assert cli.main([*argv, "--out", str(run)]) == 0
    five = write_pictures(tmp_path / "five.npz")
    with np.load(five) as archive:
        images, labels = archive["images"], np.arange(190) % 5
    np.savez(five, images=images, labels=labels)
    capsys.readouterr()
    argv = ["train", "--init-from", str(run), "--data", str(five), "--recipe", "standard"]
    more = ["--set", "batch_size=8", "--epochs", "1", "--lr", "0", "--out", str(other)]
    assert cli.main([*argv, *more]) == 0
    assert "initialised anew: head.linear.weight, head.linear.bias" in capsys.readouterr().out
    old = checkpoint.read(run / "best.safetensors").part("ema")
    new = checkpoint.read(other / "last.safetensors").part("model")
    name = "features.stem.conv.weight"
    assert np.array_equal(old[name], new[name])
    assert new["head.linear.bias"].shape == (5,)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    _trainer(tmp_path).fit(should_stop=lambda: True)
    state = checkpoint.read(tmp_path / "last.safetensors")
    model = build("mlp", num_classes=3, input_shape=(8, 8, 3))
    with pytest.raises(CheckpointError, match="weights of another network"):
        take_weights(model, state, 3)


def test_a_batch_larger_than_the_data_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected at most the 64 training images"):
        _trainer(tmp_path, batch_size=65)


class _Doubled(Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 1e38 * 1e38


def test_a_model_without_layers_is_named_itself() -> None:
    assert first_bad_layer(_Doubled(), np.ones((1, 2), np.float32)) == "the model (_Doubled)"
