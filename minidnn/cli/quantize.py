"""``minidnn quantize``: a trained network on 8-bit integers, and what that costs."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from minidnn.cli.compile import check_output, save
from minidnn.cli.evaluate import add_data, add_weights, check_average, load_pictures
from minidnn.cli.session import open_run, set_threads

if TYPE_CHECKING:
    from collections.abc import Callable

    from minidnn.config import Config
    from minidnn.data import Dataset
    from minidnn.measure.quantize_report import Drawn, Normalisation
    from minidnn.plan.compiler import Plan

NAME = "quantize"
HELP = "a trained network on 8-bit integers: calibrated, compared with float32, in one file"
METHODS = ("mse", "percentile", "minmax")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_weights(parser, "folder of the run")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="such as MODEL.minidnn")
    add_data(parser)
    parser.add_argument(
        "--calibrate", type=int, default=1000, metavar="N",
        help="training images that ranges are taken from (default: 1000)",
    )  # fmt: skip
    parser.add_argument(
        "--method", choices=METHODS, default="mse", help="of choosing ranges (default: mse)"
    )
    parser.add_argument(
        "--draws", type=int, default=1, metavar="N",
        help="repeat with other training images, and report the mean; the first is written",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="of the choice of training images")
    parser.add_argument(
        "--keep", action="append", default=[], metavar="LAYER",
        help="leave a layer in float32, such as head; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--finetune", type=int, default=0, metavar="N",
        help="train so many epochs with rounding in place (default: 0)",
    )  # fmt: skip
    parser.add_argument(
        "--lr", type=float, default=3e-4, metavar="RATE", help="of --finetune (default: 0.0003)"
    )
    parser.add_argument("--limit", type=int, metavar="N", help="compare on at most so many images")
    parser.add_argument(
        "--layers", action="store_true", help="print every layer's noise and what it costs"
    )


def run(args: argparse.Namespace) -> int:
    """Calibrate, compare, write."""
    set_threads(args.threads)
    _check(args)
    from minidnn import runs
    from minidnn.data import Batches
    from minidnn.evaluation import evaluate
    from minidnn.measure import quantize_report as report
    from minidnn.measure import results
    from minidnn.measure.tables import show

    state, config, model, about = open_run(args.run, args.weights, averaged=not args.raw)
    check_average(args, state)
    splits = load_pictures(args, state, config)
    normalisation = runs.normalisation(state)

    def say(text: str) -> None:
        print(text, file=sys.stderr if args.json else sys.stdout, flush=True)

    say(f"{about}\ncalibrated on {args.calibrate:,} training images of {splits.train.name}")
    drawn = []
    for number in range(args.draws):
        images = report.draw(splits.train, args.calibrate, args.seed, number)
        drawn.append(report.quantised(model, images, normalisation, args.keep))
        if args.finetune:
            drawn[-1].plans[report.FINETUNED] = _finetuned(
                args, drawn[-1], config, splits.train, normalisation, say
            )
    test = splits.test.first(args.limit)
    mean, std = normalisation
    batches = Batches(test, batch_size=128, mean=mean, std=std, shuffle=False)
    plain = evaluate(model, batches)
    rows = report.compared(plain, [one.plans for one in drawn], batches)
    found = report.layers(drawn[0], args.method, normalisation, args.keep)
    chosen = report.FINETUNED if args.finetune else args.method
    if args.output:
        kind = f"8-bit ({chosen}, {args.calibrate} training images)"
        save(args.output, drawn[0].plans[chosen], state, f"{about}, {kind}")
    if args.json:
        values = {"weights": about, "chosen": chosen, **report.as_json(plain, rows, found)}
        print(json.dumps(results.envelope(NAME, values)))
        return 0
    note = f"; {test.note}" if test.note else ""
    title = f"accuracy on {len(test):,} test images of {test.name}{note}; * chosen"
    tables = [report.accuracy_table(plain, rows, chosen, title)]
    texts = [report.ACCURACY_TEXT]
    if args.layers:
        tables.append(report.layers_table(found, drawn[0].prepared))
        texts.append(report.LAYER_TEXT)
    show(tables, *texts, report.costliest(found))
    if args.output:
        size = args.output.stat().st_size / 1e6
        print(f"{args.output}: {len(drawn[0].plans[chosen].program.steps)} steps, {size:.1f} MB")
    return 0


def _check(args: argparse.Namespace) -> None:
    from minidnn.errors import ConfigError

    if args.output:
        check_output(args.output)
    for name, least in (("draws", 1), ("finetune", 0), ("seed", 0)):
        if getattr(args, name) < least:
            raise ConfigError(f"--{name}: expected at least {least}, got {getattr(args, name)}")


def _finetuned(
    args: argparse.Namespace, drawn: Drawn, config: Config, train: Dataset,
    normalisation: Normalisation, say: Callable[[str], None],
) -> Plan:  # fmt: skip
    """Train with rounding in place; return the plan of what came out."""
    from minidnn.data import Batches
    from minidnn.data.augment import Augment
    from minidnn.measure.quantize_report import inputs
    from minidnn.quantization.calibration import calibrate
    from minidnn.quantization.finetune import finetune
    from minidnn.quantization.post_training import steps_of
    from minidnn.quantization.quantizer import quantise

    prepared = drawn.prepared
    augment = Augment(config.pad, config.pad_mode, config.flip, config.shift, config.cutout)
    mean, std = normalisation
    batches = Batches(
        train, batch_size=config.batch_size, seed=args.seed, augment=augment, mean=mean,
        std=std,
    )  # fmt: skip
    codes, keep = prepared.codes(args.method), steps_of(prepared.program, args.keep)
    every = max(1, len(batches) // 10)

    def progress(epoch: int, done: int, loss: float) -> None:
        if done % every == 0:
            say(f"fine-tuning: epoch {epoch + 1}/{args.finetune}, step {done}, loss {loss:.4f}")

    program = finetune(
        prepared.program, codes, batches.epoch, epochs=args.finetune,
        steps_per_epoch=len(batches), keep=keep, lr=args.lr, progress=progress,
    )  # fmt: skip
    # Training moved the ranges a little.
    codes = calibrate(program, inputs(drawn.images, normalisation), args.method)
    return quantise(program, codes, keep=keep).plan()
