"""``minidnn compile``: a trained network as one file that inference runs fastest."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from minidnn.cli.evaluate import add_weights, check_average
from minidnn.cli.session import open_model, set_threads

if TYPE_CHECKING:
    from minidnn.checkpoint import Checkpoint
    from minidnn.plan.compiler import Plan

NAME = "compile"
HELP = "fold, join and lay out a trained network for inference, into one file"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_weights(parser, "folder of the run; or a compiled model, to --explain it")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="such as MODEL.minidnn")
    parser.add_argument(
        "--explain", action="store_true", help="print the steps, what each joins, and its time"
    )
    parser.add_argument(
        "--batch", type=int, default=1, metavar="N", help="images to time them on (default: 1)"
    )


def run(args: argparse.Namespace) -> int:
    """Compile, write, explain."""
    set_threads(args.threads)
    from minidnn import runs
    from minidnn.errors import ConfigError
    from minidnn.plan.compiler import Plan, compile

    if not (args.output or args.explain or args.json):
        raise ConfigError("expected -o FILE, --explain or --json")
    if args.batch < 1:
        raise ConfigError(f"--batch: expected at least 1, got {args.batch}")
    if args.output:
        check_output(args.output)
    state, _, model, about = open_model(args.run, args.weights, averaged=not args.raw)
    check_average(args, state)
    if isinstance(model, Plan):
        if args.output:
            raise ConfigError(f"--output: {args.run} is compiled already; name the run's folder")
        plan = model
    else:
        plan = compile(model, (args.batch, *runs.input_shape(state)))
    if args.output:
        save(args.output, plan, state, about)
    if args.explain or args.json:
        _explain(args, about, plan)
    if args.output and not args.json:
        size = args.output.stat().st_size / 1e6
        print(f"{args.output}: {len(plan.program.steps)} steps, {size:.1f} MB; {about}")
    return 0


def check_output(path: Path) -> None:
    """Refuse what is no name for a compiled model, before any work is done.

    Raises
    ------
    ConfigError
    """
    from minidnn.errors import ConfigError
    from minidnn.plan import file
    from minidnn.plots import check_folder

    check_folder(path)
    if path.suffix != file.SUFFIX:
        raise ConfigError(f"--output: expected a name ending in {file.SUFFIX}: {path}")


def save(path: Path, plan: Plan, state: Checkpoint, about: str) -> None:
    """Write a plan with what its run knows of classes and pictures."""
    from minidnn.plan import file

    kept = ("config", "preprocessing", "position")
    file.save(path, plan, {**{k: state.info[k] for k in kept}, "about": about})


def _explain(args: argparse.Namespace, about: str, plan: Plan) -> None:
    from minidnn.measure import plan_report, results
    from minidnn.measure.machine import describe
    from minidnn.measure.peaks import known_peaks
    from minidnn.measure.tables import show

    found = plan_report.explain(plan, args.batch, known_peaks())
    result = results.envelope(NAME, {"weights": about, **found.as_dict()})
    if args.json:
        print(json.dumps(result, indent=2))
    else:
        show([plan_report.table(found)], *plan_report.texts(found), describe(result["machine"]))
