"""Show how a training run is getting on: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from minidnn.cli.compiling import Watch
from minidnn.cli.session import percent
from minidnn.train import Observer, Trainer

KINDS = ("auto", "bar", "lines", "none")
SECONDS_BETWEEN_LINES = 5.0


class Lines(Observer):
    """One line every few seconds and one per epoch.

    Parameters
    ----------
    watch : Watch
        Knows how long Numba compiled.
    epochs : int
    """

    def __init__(self, watch: Watch, epochs: int) -> None:
        self.watch, self.epochs = watch, epochs
        self._next = 0.0

    def say(self, text: str) -> None:
        """Write one line."""
        print(text, flush=True)

    def compiled(self, kernel: str, seconds: float) -> None:
        """Count it."""
        self.watch.helped(kernel, seconds)

    def first_step(self, seconds: float) -> None:
        """Say how long everything took that only the first step needs."""
        done = len(self.watch.done)
        compiled = f", {done} kernels compiled on the way" if done else ""
        self.say(f"first step done after {seconds:.1f} s{compiled}")

    def step(self, trainer: Trainer) -> None:
        """Write a line if the last one is old enough."""
        now = time.monotonic()
        if now >= self._next:
            self._next = now + SECONDS_BETWEEN_LINES
            self.say(status(trainer))

    def epoch(self, record: dict[str, Any]) -> None:
        """Write the line that stays."""
        test = ""
        if "test_loss" in record:
            test = f"test {record['test_loss']:.4f}, {percent(record['test_accuracy'])}; "
        speed = record["images_per_second"]  # 0: too few steps since the start to know
        self.say(
            f"epoch {record['epoch']}/{self.epochs}: "
            f"training {record['train_loss']:.4f}, {percent(record['train_accuracy'])}; "
            f"validation {record['val_loss']:.4f}, {percent(record['val_accuracy'])}"
            f"{' (best)' if record['best'] else ''}; {test}"
            f"lr {record['lr']:.3g}{f'; {speed:.0f} images/s' if speed else ''}"
        )


class Quiet(Lines):
    """Nothing between start and end."""

    def say(self, text: str) -> None:
        """Keep it."""

    def step(self, trainer: Trainer) -> None:
        """Keep it."""


class Bar(Lines):
    """A bar over the steps of the run, with the lines of finished epochs above it."""

    def __init__(self, watch: Watch, epochs: int, bar: Progress) -> None:
        super().__init__(watch, epochs)
        self.bar = bar
        self.task = bar.add_task("compiling", total=None, status="")

    def say(self, text: str) -> None:
        """Write one line above the bar."""
        self.bar.console.print(text, highlight=False)

    def compiled(self, kernel: str, seconds: float) -> None:
        """Show that something happens."""
        super().compiled(kernel, seconds)
        self.bar.update(self.task, status=f"{len(self.watch.done)} kernels, {kernel}")

    def step(self, trainer: Trainer) -> None:
        """Move the bar."""
        self.bar.update(
            self.task,
            description="training",
            completed=trainer.position.step,
            total=trainer.total_steps,
            status=status(trainer),
        )

    def validation(self, images: int, of: int) -> None:
        """Say why the bar stands still."""
        self.bar.update(self.task, description=f"validating {images}/{of}")


def status(trainer: Trainer) -> str:
    """Return where the run is, on one line."""
    p = trainer.position
    parts = [
        f"epoch {min(p.epoch + 1, trainer.config.epochs)}/{trainer.config.epochs}",
        f"step {p.step}/{trainer.total_steps}",
    ]
    if p.seen:
        parts += [f"loss {p.loss_sum / p.seen:.4f}", f"accuracy {percent(p.correct / p.seen)}"]
    if trainer.images_per_second:
        left = (trainer.total_steps - p.step) * trainer.config.batch_size
        seconds = round(left / trainer.images_per_second)
        parts += [f"{trainer.images_per_second:.0f} images/s", f"{clock(seconds)} left"]
    return "  ".join(parts)


def clock(seconds: int) -> str:
    """Return 3725 as '1:02:05' and 65 as '1:05'."""
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


@contextmanager
def showing(kind: str, watch: Watch, epochs: int) -> Iterator[Observer]:
    """Yield the observer for ``--progress kind``."""
    console = Console()
    if kind == "auto":
        kind = "bar" if console.is_terminal else "lines"
    if kind == "bar":
        left, right = TextColumn("{task.description}"), TextColumn("{task.fields[status]}")
        columns = (left, BarColumn(20), right)
        with Progress(*columns, console=console, transient=True) as bar:
            yield Bar(watch, epochs, bar)
    else:
        yield (Lines if kind == "lines" else Quiet)(watch, epochs)
