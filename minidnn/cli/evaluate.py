"""``minidnn evaluate``: a trained network on pictures it was not trained on."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from minidnn.cli.session import add_threads, load_data, open_model, percent, set_threads

if TYPE_CHECKING:
    from minidnn.checkpoint import Checkpoint
    from minidnn.config import Config
    from minidnn.data import Batches, Dataset, Splits
    from minidnn.evaluation import Evaluation
    from minidnn.quantization.comparison import Lost

NAME = "evaluate"
HELP = "accuracy, loss and confusion of a trained network on the test set"


def add_weights(
    parser: argparse.ArgumentParser, run: str = "folder of the run, or a compiled model"
) -> None:
    """Declare which of a run's weights to use."""
    parser.add_argument("run", metavar="RUN", help=run)
    parser.add_argument(
        "--weights", choices=("best", "last"), default="best",
        help="best on the validation set, or the last (default: best)",
    )  # fmt: skip
    kinds = parser.add_mutually_exclusive_group()
    kinds.add_argument("--raw", action="store_true", help="the weights themselves")
    kinds.add_argument("--ema", action="store_true", help="their moving average (the default)")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of text")
    add_threads(parser)


def check_average(args: argparse.Namespace, state: Checkpoint) -> None:
    """Refuse ``--ema`` for weights that have no average.

    Raises
    ------
    ConfigError
    """
    from minidnn import runs
    from minidnn.errors import ConfigError

    if args.ema and not runs.has_average(state):
        raise ConfigError(f"--ema: {args.run} was trained without an average (setting ema)")


def add_data(parser: argparse.ArgumentParser) -> None:
    """Declare which pictures to use."""
    parser.add_argument("--data", metavar="NAME", help="other pictures with the same classes")
    parser.add_argument("--data-dir", metavar="DIR", help="where CIFAR's folder stands")


def load_pictures(args: argparse.Namespace, state: Checkpoint, config: Config) -> Splits:
    """Read a run's pictures, or the others asked for.

    Raises
    ------
    CheckpointError
        If their classes are not those the run was trained on.
    """
    from minidnn import runs
    from minidnn.errors import CheckpointError

    changes = {"data": args.data, "data_dir": args.data_dir}
    if args.data and args.data != config.data:  # the run's cut belongs to the run's pictures
        config = replace(config, protocol="official", val=0)
    splits = load_data(replace(config, **{key: value for key, value in changes.items() if value}))
    if splits.train.classes != runs.classes(state):
        raise CheckpointError(
            f"{args.run}: was trained on the classes {_some(runs.classes(state))}, "
            f"{splits.train.name} has {_some(splits.train.classes)}"
        )
    return splits


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_weights(parser)
    add_data(parser)
    parser.add_argument("--split", choices=("test", "val", "train"), default="test")
    parser.add_argument("--limit", type=int, metavar="N", help="at most so many images")
    parser.add_argument(
        "--against", metavar="RUN",
        help="another run or compiled model, such as the 8-bit one: the difference, in pairs",
    )  # fmt: skip
    parser.add_argument(
        "--tta", action="store_true", help="also with logits averaged over six views"
    )


def run(args: argparse.Namespace) -> int:
    """Evaluate and report."""
    set_threads(args.threads)
    from minidnn import runs
    from minidnn.data import Batches
    from minidnn.evaluation import evaluate

    state, config, model, about = open_model(args.run, args.weights, averaged=not args.raw)
    check_average(args, state)
    dataset = getattr(load_pictures(args, state, config), args.split).first(args.limit)
    mean, std = runs.normalisation(state)
    batches = Batches(dataset, batch_size=128, mean=mean, std=std, shuffle=False)
    plain = evaluate(model, batches)
    averaged = evaluate(model, batches, tta=True) if args.tta else None
    against = _against(args, batches) if args.against else None
    if args.json:
        print(json.dumps(_as_json(plain, averaged, against, dataset, about)))
        return 0
    print(about)
    print(f"{args.data or config.data}, {args.split} split: {len(dataset):,} images")
    _table(plain, dataset.classes)
    print(_line("accuracy", plain, dataset.note))
    if averaged is not None:
        print(_line("averaged over six views", averaged, dataset.note))
    if against is not None:
        print(against.text(plain))
    _picture(plain, dataset, _beside(Path(args.run), f"confusion-{args.split}.png"))
    return 0


def _beside(path: Path, name: str) -> Path:
    """Return where a picture belongs: in the run's folder, or beside a compiled model."""
    from minidnn import runs
    from minidnn.plan import file

    if path.suffix == file.SUFFIX:
        return path.with_name(f"{path.stem}-{name}")
    return runs.find(path) / name


class _Other(NamedTuple):
    """Another model on the same pictures."""

    about: str
    found: Evaluation

    def lost(self, plain: Evaluation) -> Lost:
        from minidnn.quantization.comparison import lost

        return lost(plain.right, [self.found.right])

    def text(self, plain: Evaluation) -> str:
        lost = self.lost(plain)
        return (
            f"against {self.about}\n{_line('its accuracy', self.found, '')}\n"
            f"it loses {lost} in pairs; {lost.only_first:.0f} images only the first has right, "
            f"{lost.only_second:.0f} only the second"
        )


def _against(args: argparse.Namespace, batches: Batches) -> _Other:
    from minidnn import runs
    from minidnn.errors import CheckpointError
    from minidnn.evaluation import evaluate

    state, _, model, about = open_model(args.against, args.weights, averaged=not args.raw)
    if runs.classes(state) != batches.dataset.classes:
        raise CheckpointError(f"{args.against}: was trained on other classes than {args.run}")
    if runs.input_shape(state) != batches.dataset.input_shape:
        raise CheckpointError(
            f"{args.against}: takes images of shape {runs.input_shape(state)}, not "
            f"{batches.dataset.input_shape}"
        )
    ours = batches.mean, batches.std
    if any((a != b).any() for a, b in zip(runs.normalisation(state), ours, strict=True)):
        raise CheckpointError(f"{args.against}: normalises pixels otherwise than {args.run}")
    return _Other(about, evaluate(model, batches))


def _some(names: list[str]) -> str:
    return f"{', '.join(names[:5])}{', ...' if len(names) > 5 else ''} ({len(names)})"


def _line(what: str, result: Evaluation, note: str) -> str:
    return (
        f"{what}: {percent(result.accuracy)} ({result.correct:,} of {result.images:,}), "
        f"loss {result.loss:.4f}{f'; {note}' if note else ''}"
    )


def _as_json(
    plain: Evaluation, averaged: Evaluation | None, against: _Other | None, dataset: Any, about: str
) -> Any:
    values: dict[str, Any] = {
        "weights": about,
        "data": dataset.name,
        "note": dataset.note,
        "images": plain.images,
        "accuracy": plain.accuracy,
        "loss": plain.loss,
        "classes": dataset.classes,
        "confusion": plain.confusion.tolist(),
    }
    if averaged is not None:
        values["six_views"] = {"accuracy": averaged.accuracy, "loss": averaged.loss}
    if against is not None:
        values["against"] = {
            "weights": against.about,
            "accuracy": against.found.accuracy,
            "loss": against.found.loss,
            "lost": asdict(against.lost(plain)),
        }
    return values


def _table(result: Evaluation, classes: list[str]) -> None:
    import numpy as np
    from rich.console import Console
    from rich.table import Table

    table = Table()
    table.add_column("class")
    for title in ("images", "found", "right when named"):
        table.add_column(title, justify="right")
    table.add_column("most often taken for")
    off_diagonal = result.confusion * (1 - np.eye(len(classes), dtype=np.int64))
    for i, name in enumerate(classes):
        other = int(off_diagonal[i].argmax())
        count = int(off_diagonal[i, other])
        table.add_row(
            name,
            f"{result.confusion[i].sum():,}",
            _share(result.recall()[i]),
            _share(result.precision()[i]),
            f"{classes[other]} ({count})" if count else "",
        )
    Console().print(table)


def _share(value: float) -> str:
    return percent(value) if value == value else "-"  # NaN: no such picture


def _picture(result: Evaluation, dataset: Dataset, path: Path) -> None:
    from minidnn import plots

    if plots.available():
        plots.confusion(
            result.confusion, dataset.classes, path,
            title=f"{dataset.name}\n{_line('accuracy', result, dataset.note)}",
        )  # fmt: skip
        print(f"confusion matrix: {path}")
    else:
        print("for a picture of the confusion matrix: python -m pip install 'minidnn[plot]'")
