"""The fit loop: steps, epochs, checkpoints, an exact way to stop and go on.

>>> trainer = Trainer(model, resolve({"epochs": 5}), load_splits("shapes"), Path("runs/mine"))
>>> trainer.fit()

A run is a folder: ``config.toml``, ``log.jsonl``, ``last.safetensors`` (go on from here) and
``best.safetensors`` (best on the validation pictures). Everything a step depends on is either
in the checkpoint or a pure function of the step's number, so a run that is killed and resumed
ends with the same bits as one that never stopped.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minidnn import checkpoint
from minidnn.checkpoint import Checkpoint
from minidnn.config import Config
from minidnn.data import Augment, Batches, Splits
from minidnn.ema import EMA
from minidnn.errors import CheckpointError, NonFiniteError
from minidnn.evaluation import Evaluation, evaluate, evaluating
from minidnn.finite import check_finite, first_bad_layer
from minidnn.fusion import fuse
from minidnn.kernels.ahead import Call
from minidnn.losses import cross_entropy
from minidnn.module import Module
from minidnn.optim import clip_grad_norm
from minidnn.provenance import fingerprint, machine
from minidnn.rules import make_optimizer, make_schedule
from minidnn.runlog import RunLog
from minidnn.tensor import Array, Tensor
from minidnn.warmup import warm_up

LAST, BEST, LOG, CONFIG = "last.safetensors", "best.safetensors", "log.jsonl", "config.toml"


@dataclass
class Position:
    """How far a run is; all that changes from step to step outside the arrays.

    Attributes
    ----------
    step, epoch, batch : int
        Steps done; whole epochs done; batches done of the present epoch.
    loss_sum, correct, seen : float, int, int
        Sums over the present epoch's training images.
    best_accuracy, best_epoch : float, int
        On the validation set; epoch 0 means none yet.
    stopped_early : bool
        Whether `patience` ended the run.
    seconds : float
        Time spent on the present epoch, without compiling.
    """

    step: int = 0
    epoch: int = 0
    batch: int = 0
    loss_sum: float = 0.0
    correct: int = 0
    seen: int = 0
    best_accuracy: float = -1.0
    best_epoch: int = 0
    stopped_early: bool = False
    seconds: float = 0.0


class Observer:
    """What a caller may watch; the methods do nothing here. The library itself never prints."""

    def compiled(self, kernel: str, seconds: float) -> None:
        """Hear that a helper process compiled a kernel; called from another thread."""

    def first_step(self, seconds: float) -> None:
        """Hear how long it took this process to end its first step, compiling included."""

    def step(self, trainer: Trainer) -> None:
        """See the trainer after each step."""

    def validation(self, images: int, of: int) -> None:
        """See how far the validation is."""

    def epoch(self, record: dict[str, Any]) -> None:
        """Read the log record of a finished epoch."""


class Trainer:
    """Trains one model in one run folder.

    Parameters
    ----------
    model : Module
        Pictures (N, H, W, C) -> logits (N, K).
    config : Config
    splits : Splits
    folder : Path
        Made if missing; must hold no run already, unless `restore` follows.
    observer : Observer, optional

    Attributes
    ----------
    position : Position
    total_steps : int
    images_per_second : float
        Speed since this process started, without its first step; 0 until known.
    """

    def __init__(
        self,
        model: Module,
        config: Config,
        splits: Splits,
        folder: Path,
        observer: Observer | None = None,
    ) -> None:
        self.model, self.config, self.splits, self.folder = model, config, splits, folder
        self.observer = observer or Observer()
        if config.fuse:
            fuse(model, (2, *splits.train.input_shape))
        augment = Augment(config.pad, config.pad_mode, config.flip, config.shift, config.cutout)
        self.train_batches = Batches(
            splits.train, batch_size=config.batch_size, seed=config.seed, augment=augment
        )
        self.mean, self.std = self.train_batches.mean, self.train_batches.std
        self.val_batches = self._plain(splits.val)
        self.total_steps = config.epochs * len(self.train_batches)
        self.optimizer = make_optimizer(config, model)
        self.schedule = make_schedule(config, self.total_steps, len(self.train_batches))
        # Warmed up: the average soon forgets the initial weights, so early epochs mean something.
        self.ema = EMA(model, config.ema, warmup=True) if config.ema else None
        self.position = Position()
        self.images_per_second = 0.0
        self._log: RunLog | None = None
        self._log_position: int | None = None
        self._data = fingerprint(splits.train, splits.val)
        self._saved_at = time.monotonic()
        self._timed_images, self._timed_seconds, self._compiled = 0, 0.0, False
        self._started = 0.0

    def _plain(self, dataset: Any) -> Batches:
        return Batches(dataset, batch_size=128, mean=self.mean, std=self.std, shuffle=False)

    # --- the loop ---------------------------------------------------------------------

    @property
    def finished(self) -> bool:
        """Whether every epoch is done, or patience ran out."""
        return self.position.epoch >= self.config.epochs or self.position.stopped_early

    def fit(self, should_stop: Callable[[], bool] = lambda: False) -> bool:
        """Train from the present position to the end.

        Parameters
        ----------
        should_stop : callable
            Asked after every step; once true, the state is saved and the call returns.

        Returns
        -------
        bool
            True at the end of the run, False where it was asked to stop.

        Raises
        ------
        NonFiniteError
            If a loss or weight stops being a finite number: before it can reach a checkpoint.
        CheckpointError
            If the folder cannot be written to, or holds a run already.
        """
        try:
            self._open()
            # An overflow needs no warning of its own: it ends in the error that names its layer.
            with np.errstate(over="ignore", invalid="ignore"):
                if not self.finished:
                    self._warm_up()
                while not self.finished:
                    if not self._epoch(should_stop):
                        return False
            return True
        finally:
            if self._log is not None:
                self._log.close()
                self._log = None

    def _open(self) -> None:
        fresh = self._log_position is None
        if fresh and checkpoint.exists(self.folder / LAST):
            raise CheckpointError(
                f"{self.folder}: holds a run already; go on with --resume {self.folder}, "
                "or choose another folder with --out"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        self._log = RunLog(self.folder / LOG, self._log_position)
        (self.folder / CONFIG).write_text(self.config.to_toml(), encoding="utf-8")
        if fresh:
            self._write({"type": "start", "config": self.config.to_dict(), "data": self._data})
            self.save(LAST)

    def _write(self, record: dict[str, Any]) -> None:
        assert self._log is not None
        self._log.append({**record, "time": round(time.time(), 3)})

    def _warm_up(self) -> None:
        self._started = time.perf_counter()
        self.model.train()

        def step() -> None:
            first = np.arange(min(self.config.batch_size, len(self.train_batches.dataset)))
            self._update(self._forward(*self.train_batches.take(first))[1])

        averages = [self.ema] if self.ema is not None else []
        warm_up(step, self.model, self.optimizer, *averages, tell=self._tell)

    def _tell(self, call: Call, seconds: float) -> None:
        self.observer.compiled(str(call), seconds)

    def _epoch(self, should_stop: Callable[[], bool]) -> bool:
        p = self.position
        self.model.train()
        # Closed, not left to the garbage collector: a thread is preparing the next batch.
        with closing(self.train_batches.epoch(p.epoch, start=p.batch)) as batches:
            since = time.perf_counter()
            for x, labels in batches:
                loss = self._step(x, labels)
                since = self._count(loss, len(labels), since)
                stop = should_stop()
                if stop or self._checkpoint_due():
                    self.save(LAST)
                if stop:
                    return False
        self._finish_epoch()
        return True

    def _step(self, x: Array, labels: Array) -> float:
        """Train on one batch, x (B, H, W, C) and labels (B,); return its mean loss."""
        self.optimizer.lr = self.schedule(self.position.step)
        logits, loss = self._forward(x, labels)
        value: float = loss.item()
        if not math.isfinite(value):
            raise self._bad(f"loss is {value} at step {self.position.step + 1}", x)
        self._update(loss)
        self.position.correct += int((logits.data.argmax(axis=1) == labels).sum())
        return value

    def _forward(self, x: Array, labels: Array) -> tuple[Tensor, Tensor]:
        logits = self.model(Tensor(x))
        smoothing = self.config.label_smoothing
        return logits, cross_entropy(logits, labels, label_smoothing=smoothing)

    def _update(self, loss: Tensor) -> None:
        self.optimizer.zero_grad()
        loss.backward()
        if self.config.clip_norm:
            clip_grad_norm(self.optimizer, self.config.clip_norm)
        self.optimizer.step()
        if self.ema is not None:
            self.ema.update()

    def _bad(self, what: str, x: Array) -> NonFiniteError:
        where = first_bad_layer(self.model, x) or "the loss itself"
        return NonFiniteError(
            f"{what}; first bad output: {where}. The last checkpoint is intact; "
            f"try a lower lr than {self.config.lr:g}, or set clip_norm"
        )

    def _count(self, loss: float, images: int, since: float) -> float:
        """Note one step; return the time at which it was over."""
        p, now = self.position, time.perf_counter()
        p.step, p.batch, p.seen = p.step + 1, p.batch + 1, p.seen + images
        p.loss_sum += loss * images
        if self._compiled:
            self._timed_images += images
            self._timed_seconds += now - since
            self.images_per_second = self._timed_images / self._timed_seconds
            p.seconds += now - since
        else:  # the first step compiles: it tells nothing about speed
            self._compiled = True
            self.observer.first_step(now - self._started)
        if p.step % self.config.log_steps == 0:
            lr = self.schedule(p.step - 1)
            self._write({"type": "step", "step": p.step, "loss": loss, "lr": lr})
        self.observer.step(self)
        return now

    def _finish_epoch(self) -> None:
        p = self.position
        result = self.measure(self.val_batches)
        record: dict[str, Any] = {
            "type": "epoch",
            "epoch": p.epoch + 1,
            "step": p.step,
            "lr": self.schedule(p.step - 1),
            "train_loss": p.loss_sum / p.seen,
            "train_accuracy": p.correct / p.seen,
            "val_loss": result.loss,
            "val_accuracy": result.accuracy,
        }
        if self.config.report_test:
            test = self.measure(self._plain(self.splits.test))
            record |= {"test_loss": test.loss, "test_accuracy": test.accuracy}
        best = result.accuracy > p.best_accuracy
        if best:
            p.best_accuracy, p.best_epoch = result.accuracy, p.epoch + 1
        record |= {
            "best": best,
            "images_per_second": round(self.images_per_second, 1),
            "seconds": round(p.seconds, 2),
        }
        self._write(record)
        p.epoch, p.batch, p.loss_sum, p.correct, p.seen, p.seconds = p.epoch + 1, 0, 0.0, 0, 0, 0.0
        waited = p.epoch - p.best_epoch
        p.stopped_early = bool(self.config.patience) and waited >= self.config.patience
        if best:
            self.save(BEST)
        self.save(LAST)
        self.observer.epoch(record)

    def measure(self, batches: Batches) -> Evaluation:
        """Evaluate the averaged weights where there are some, else the weights themselves."""
        size = len(batches.dataset)
        with ExitStack() as stack:
            if self.ema is not None:
                stack.enter_context(self.ema.applied())
            result = evaluate(
                self.model,
                batches,
                progress=lambda done: self.observer.validation(done, size),
                tell=self._tell,
            )
            if not math.isfinite(result.loss):
                x, _ = next(batches.epoch(0))
                stack.enter_context(evaluating(self.model))
                raise self._bad(f"validation loss is {result.loss}", x)
        return result

    # --- state ------------------------------------------------------------------------

    def _checkpoint_due(self) -> bool:
        if self.position.batch == len(self.train_batches):  # the epoch's end saves anyway
            return False
        every = self.config.checkpoint_steps
        if every and self.position.step % every == 0:
            return True
        return time.monotonic() - self._saved_at >= self.config.checkpoint_seconds

    def save(self, name: str) -> None:
        """Write all state to ``folder/name``.

        Raises
        ------
        NonFiniteError
            If a weight or an optimiser's state is NaN or infinite; the old file stays.
        CheckpointError
            If the disk is full or read-only; the old file stays.
        """
        assert self._log is not None
        arrays = {f"model.{n}": a for n, a in self.model.state_dict().items()}
        arrays |= {f"optimizer.{n}": a for n, a in self.optimizer.state_dict().items()}
        if self.ema is not None:
            arrays |= {f"ema.{n}": a for n, a in self.ema.state_dict().items()}
        check_finite(arrays, f"after step {self.position.step}, so it was not saved")
        train = self.splits.train
        info = {
            "config": self.config.to_dict(),
            "position": asdict(self.position),
            "log_position": self._log.position,
            "data": self._data,
            "preprocessing": {
                "input_shape": list(train.input_shape),
                "classes": train.classes,
                "mean": self.mean.tolist(),
                "std": self.std.tolist(),
                "data": train.name,
                "note": train.note,
            },
            "machine": machine(),
        }
        checkpoint.save(self.folder / name, arrays, info)
        self._saved_at = time.monotonic()

    def restore(self, state: Checkpoint) -> list[str]:
        """Take up a run where a checkpoint left it.

        Returns
        -------
        list of str
            What differs between the two machines, and so may change the last bits of results.

        Raises
        ------
        CheckpointError
            If the data is not what the run was started on.
        """
        for name, want in state.info["data"].items():
            if self._data.get(name) != want:
                raise CheckpointError(
                    f"{self.folder}: the {name} pictures are not those the run was started on "
                    f"(fingerprint {self._data.get(name)}, expected {want}); see data_dir"
                )
        self.model.load_state_dict(state.part("model"))
        self.optimizer.load_state_dict(state.part("optimizer"))
        if self.ema is not None:
            self.ema.load_state_dict(state.part("ema"))
        self.position = Position(**state.info["position"])
        self._log_position = int(state.info["log_position"])
        then, now = state.info["machine"], machine()
        return [
            f"{key} was {then[key]}, is {now[key]}"
            for key in sorted(now.keys() & then.keys())
            if then[key] != now[key]
        ]
