"""``minidnn train``: train a network, stop, go on."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minidnn.cli.session import add_threads, build_model, load_data, percent, set_threads

if TYPE_CHECKING:
    from minidnn.config import Config
    from minidnn.train import Trainer

NAME = "train"
HELP = "train a network; without arguments, quicknet on generated shapes for two minutes"

# Options that are settings of the same name.
OPTIONS: dict[str, tuple[type, str, str]] = {
    "data": (str, "NAME", "shapes, cifar10, cifar100, folder:PATH or FILE.npz"),
    "data_dir": (str, "DIR", "where CIFAR's folder stands (default: the download cache)"),
    "recipe": (
        str,
        "NAME",
        "paper, standard, fast or quick (default: quick on shapes, else fast)",
    ),
    "epochs": (int, "N", "how often every training image is seen"),
    "batch_size": (int, "N", "images per step"),
    "lr": (float, "RATE", "highest learning rate"),
    "seed": (int, "N", "of weights, order, augmentation and dropout"),
    "limit": (int, "N", "train on at most so many images"),
    "val": (int, "N", "images held out of training to choose the best epoch"),
    "init_from": (str, "RUN", "start from a run's weights; another number of classes is fine"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options; left out, they leave the recipe's values alone."""
    parser.add_argument("model", nargs="?", metavar="MODEL", help="default: quicknet")
    for name, (kind, metavar, text) in OPTIONS.items():
        flag = "--" + name.replace("_", "-")
        parser.add_argument(flag, dest=name, type=kind, metavar=metavar, help=text)
    parser.add_argument(
        "--mirror", metavar="URL",
        help="where CIFAR's archive is downloaded from, if the cache has none; or its folder",
    )  # fmt: skip
    parser.add_argument("--out", metavar="RUN", help="folder to make (default: runs/MODEL-DATA-N)")
    parser.add_argument("--resume", metavar="RUN", help="go on with a stopped or finished run")
    parser.add_argument("--config", metavar="FILE", help="settings from a TOML file")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="assignments",
        help="any setting, such as optimizer=adam or model.stem=32; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--no-fuse", action="store_const", const=False, dest="fuse",
        help="run every layer on its own: slower, same results to rounding",
    )  # fmt: skip
    parser.add_argument(
        "--report-test", action="store_true", default=None, dest="report_test",
        help="report on the test set after each epoch; nothing is chosen by it",
    )  # fmt: skip
    parser.add_argument(
        "--progress", choices=("auto", "bar", "lines", "none"), default="auto",
        help="a bar on a terminal, lines elsewhere (default: auto)",
    )  # fmt: skip
    add_threads(parser)


def run(args: argparse.Namespace) -> int:
    """Train, and return the exit code: 130 if interrupted."""
    set_threads(args.threads)
    given = _given(args)
    trainer, about = _resumed(args, given) if args.resume else _fresh(args, given)
    for line in about:
        print(line)
    if trainer.finished:
        _finish(trainer)
        return 0
    return _fit(trainer, args.progress)


def _given(args: argparse.Namespace) -> dict[str, Any]:
    """Merge file, options and assignments: the later, the stronger."""
    from minidnn.config import parse_assignment, read_toml

    given = read_toml(Path(args.config)) if args.config else {}
    for name in ("model", *OPTIONS, "fuse", "report_test"):
        value = getattr(args, name)
        if value is not None:
            given[name] = value
    return given | dict(parse_assignment(text) for text in args.assignments)


def _fresh(args: argparse.Namespace, given: dict[str, Any]) -> tuple[Trainer, list[str]]:
    from minidnn import checkpoint, runs
    from minidnn.config import resolve
    from minidnn.errors import CheckpointError
    from minidnn.train import LAST, Trainer

    source = None
    if given.get("init_from"):
        source = runs.read(runs.find(Path(given["init_from"])), "best")
        theirs = runs.config_of(source)
        if given.get("model", theirs.model) == theirs.model:
            network = {f"model.{name}": value for name, value in theirs.arguments.items()}
            given = {"model": theirs.model, **network, **given}
    config = resolve(given)
    folder = Path(args.out) if args.out else _free_folder(config)
    if checkpoint.exists(folder / LAST):
        raise CheckpointError(
            f"--out {folder}: holds a run already; go on with it by --resume, or choose another"
        )
    _fetch(config, args)
    splits = load_data(config)
    num_classes = len(splits.train.classes)
    model = build_model(config, num_classes, splits.train.input_shape)
    about = []
    if source is not None:
        fresh = runs.take_weights(model, source, num_classes)
        kept = f"; initialised anew: {', '.join(fresh)}" if fresh else ""
        about.append(f"weights from {source.path}{kept}")
    trainer = Trainer(model, config, splits, folder)
    return trainer, [*_plan(trainer), *about]


def _resumed(args: argparse.Namespace, given: dict[str, Any]) -> tuple[Trainer, list[str]]:
    from minidnn import runs
    from minidnn.config import SETTINGS, Config, differences
    from minidnn.errors import ConfigError
    from minidnn.train import Trainer

    if args.out:
        raise ConfigError("--out: a resumed run stays in its folder; leave it out")
    folder = runs.find(Path(args.resume))
    state = runs.read(folder, "last")
    config = runs.config_of(state)
    changed = differences(config, given)
    epochs = changed.pop("epochs", (0, 0))[1]
    if changed:
        key, (own, value) = next(iter(changed.items()))
        raise ConfigError(
            f"--resume {folder}: {key} is {own!r} in this run, {value!r} was given; a run keeps "
            "its settings, start a new one for others (--init-from takes its weights)"
        )
    free = {k: v for k, v in given.items() if k in SETTINGS and SETTINGS[k].metadata["free"]}
    config = Config.from_dict({**config.to_dict(), **free})
    _fetch(config, args)
    splits = load_data(config)
    num_classes = len(splits.train.classes)

    def prepare(config: Config) -> tuple[Trainer, list[str]]:
        model = build_model(config, num_classes, splits.train.input_shape)
        trainer = Trainer(model, config, splits, folder)
        return trainer, trainer.restore(state)

    trainer, changes = prepare(config)
    about = [f"{folder}: going on after step {trainer.position.step}"]
    about += [f"note: {text}; the last bits of results may differ" for text in changes]
    if epochs:
        longer, _ = prepare(Config.from_dict({**config.to_dict(), "epochs": epochs}))
        about += _extension(trainer, longer)
        trainer = longer
    return trainer, [*_plan(trainer), *about]


def _fetch(config: Config, args: argparse.Namespace) -> None:
    """Download CIFAR to the cache where it is wanted from there and missing."""
    from minidnn.cli.data import download
    from minidnn.data import cifar
    from minidnn.errors import ConfigError, DataError

    form = cifar.FORMATS.get(config.data)
    if args.mirror and (form is None or config.data_dir):
        raise ConfigError(
            f"--mirror: is for {' and '.join(cifar.FORMATS)} in the download cache, got "
            f"--data {config.data}" + (f" --data-dir {config.data_dir}" if config.data_dir else "")
        )
    if form is None or config.data_dir or cifar.downloaded(form):
        return
    # A wrong setting of the network is said before a long download, not after it.
    build_model(config, form.n_classes, (cifar.SIZE, cifar.SIZE, 3))
    print(f"{form.name}: not in {cifar.cache_dir()}; downloading about 160 MB", flush=True)
    try:
        download(form.name, None, args.mirror, show=args.progress != "none")
    except DataError as error:
        raise DataError(
            f"{error}; without a network, name a folder that holds {form.folder} with "
            f"--data-dir, or run later: minidnn data get {form.name}"
        ) from None


def _extension(trainer: Trainer, longer: Trainer) -> list[str]:
    """Check that a run may be made longer, and say what that does to its schedule."""
    from minidnn.errors import ConfigError

    before, after = trainer.config.epochs, longer.config.epochs
    if not trainer.finished or after <= before:
        raise ConfigError(
            f"--epochs {after}: this run has {before} epochs, {trainer.position.epoch} of them "
            "done; only a finished run can be given more"
        )
    longer.position.stopped_early = False
    step = trainer.position.step
    return [
        f"extended from {before} to {after} epochs: schedule {longer.config.schedule!r} now spans "
        f"{longer.total_steps} steps, so lr goes on at {longer.schedule(step):.3g} "
        f"(it ended at {trainer.schedule(step - 1):.3g})"
    ]


def _free_folder(config: Config) -> Path:
    data = config.data.removeprefix("folder:").rstrip("/\\")
    name = f"{config.model}-{Path(data).stem or 'data'}"
    n = 1
    while (Path("runs") / f"{name}-{n}").exists():
        n += 1
    return Path("runs") / f"{name}-{n}"


def _plan(trainer: Trainer) -> list[str]:
    config, splits = trainer.config, trainer.splits
    parameters = sum(p.size for p in trainer.model.parameters())
    note = f" ({splits.train.note})" if splits.train.note else ""
    held = f"{len(splits.val):,} validation, {len(splits.test):,} test"
    if splits.val is splits.test:
        held = f"{len(splits.val):,} held out"
    average = f", weights averaged with decay {config.ema:g}" if config.ema else ""
    return [
        f"{config.model}: {parameters:,} parameters",
        f"{config.data}{note}: {len(splits.train):,} training, {held} images of "
        f"{len(splits.train.classes)} classes",
        f"recipe {config.recipe}: {config.epochs} epochs of {len(trainer.train_batches)} steps of "
        f"{config.batch_size} images; {config.optimizer}, lr {config.lr:g}, {config.schedule}"
        f"{average}",
        f"run: {trainer.folder}",
    ]


def _fit(trainer: Trainer, progress: str) -> int:
    from minidnn.cli import INTERRUPTED
    from minidnn.cli.compiling import Watch
    from minidnn.cli.display import showing
    from minidnn.cli.interrupt import StopOnSignal

    print("compiling kernels where needed (half a minute the first time) ...", flush=True)
    epochs = trainer.config.epochs
    with (
        Watch() as watch,
        StopOnSignal() as stop,
        showing(progress, watch, epochs) as trainer.observer,
    ):
        whole = trainer.fit(stop)
    if whole:
        _finish(trainer)
        return 0
    p, name = trainer.position, shlex.quote(str(trainer.folder))
    print(f"stopped after step {p.step} of {trainer.total_steps}; everything is saved. Go on with:")
    print(f"  minidnn train --resume {name}")
    return INTERRUPTED


def _finish(trainer: Trainer) -> None:
    """Say how it ended, draw the curves, and name the commands to go on with."""
    from minidnn import plots
    from minidnn.runlog import read_log
    from minidnn.train import LOG

    p, config, name = trainer.position, trainer.config, shlex.quote(str(trainer.folder))
    early = f", stopped early after epoch {p.epoch}" if p.stopped_early else ""
    noted = f"; {trainer.splits.train.note}" if trainer.splits.train.note else ""
    best = f"best validation accuracy {percent(p.best_accuracy)} in epoch {p.best_epoch}{early}"
    print(f"{best}{noted}")
    if trainer.splits.val is trainer.splits.test:
        print("  this protocol chooses and reports on the same held-out images")
    if plots.available():
        plots.curves(
            read_log(trainer.folder / LOG), trainer.folder / "curves.png",
            title=f"{config.model} on {config.data}{noted}",
        )  # fmt: skip
        print(f"  curves:       {trainer.folder / 'curves.png'}")
    print(f"  on the test set:  minidnn evaluate {name}")
    print(f"  on your picture:  minidnn predict {name} IMAGE")
    print(f"  train longer:     minidnn train --resume {name} --epochs {2 * config.epochs}")
