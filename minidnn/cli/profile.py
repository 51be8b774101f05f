"""``minidnn profile``: where a step's time goes, layer by layer, as a table and a timeline."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minidnn.cli.session import add_threads, set_threads
from minidnn.cli.summary import shape

if TYPE_CHECKING:
    from minidnn.measure.profiled import Result
    from minidnn.measure.trace import Trace
    from minidnn.module import Module

NAME = "profile"
HELP = "time every layer of a network, forward and backward"

MB = 10**6
TIME_LIMIT = 600.0  # seconds of measuring
PER_INPUT = 64  # numbers that a network holds at once, for each one in the picture, roughly


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("mode", choices=("train", "infer"), help="training steps or inference")
    parser.add_argument("model", metavar="MODEL", help="a model's name, such as quicknet")
    parser.add_argument("--batch", type=int, default=128, metavar="N", help="default: 128")
    parser.add_argument(
        "--steps", type=int, default=5, metavar="K", help="measured steps (default: 5)"
    )
    parser.add_argument(
        "--input-shape",
        type=shape,
        default=(32, 32, 3),
        metavar="H,W,C",
        help="size of one picture (default: 32,32,3)",
    )
    parser.add_argument("--classes", type=int, default=10, metavar="N", help="default: 10")
    parser.add_argument(
        "--no-fuse", action="store_true", help="in training, run every layer on its own"
    )
    parser.add_argument("--json", action="store_true", help="print exact numbers for programs")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="write that JSON to FILE")
    parser.add_argument(
        "--trace",
        type=Path,
        metavar="FILE",
        help="write a timeline of every call for ui.perfetto.dev or chrome://tracing",
    )
    parser.add_argument(
        "--trace-limit",
        type=float,
        metavar="MB",
        help="largest size of that file, in 10^6 bytes (default: 10)",
    )
    add_threads(parser)


def run(args: argparse.Namespace) -> int:
    """Profile, write what was asked for, print the rest."""
    set_threads(args.threads)
    _check(args)
    from minidnn.measure.results import envelope, write
    from minidnn.measure.tables import show
    from minidnn.measure.trace import Trace

    limit = 10.0 if args.trace_limit is None else args.trace_limit
    title = f"minidnn profile {args.mode} {args.model}, batch {args.batch}"
    trace = Trace(title, int(limit * MB)) if args.trace else None
    result = _measured(args, trace)
    found = envelope("profile", {**_settings(args), **result.as_dict()})
    if args.output:
        write(args.output, found)
    if trace is not None:
        trace.write(args.trace)
    if args.json:
        found["trace"] = None if trace is None else _about(trace, args.trace)
        print(json.dumps(found, indent=2))
        return 0
    heading = f"{args.mode} {args.model}, batch {args.batch}: medians of {args.steps} steps"
    show([result.table(heading)], result.totals(), *_rates(result, args.batch))
    if trace is not None:
        print(f"\n{args.trace}: timeline for ui.perfetto.dev or chrome://tracing")
        if trace.note:
            print(f"{args.trace}: {trace.note}")
    return 0


def _check(args: argparse.Namespace) -> None:
    from minidnn.errors import ConfigError

    for name, value in (("--batch", args.batch), ("--steps", args.steps)):
        if value < 1:
            raise ConfigError(f"{name}: expected at least 1, got {value}")
    if args.trace_limit is not None and args.trace is None:
        raise ConfigError("--trace-limit: expected --trace FILE beside it")
    if args.trace_limit is not None and not 0 < args.trace_limit < 1e6:
        raise ConfigError(f"--trace-limit: expected megabytes above 0, got {args.trace_limit:g}")
    for name, path in (("--output", args.output), ("--trace", args.trace)):
        if path is not None and (path.is_dir() or not path.parent.is_dir()):
            raise ConfigError(f"{name}: expected a file in a folder that exists, got {path}")


def _measured(args: argparse.Namespace, trace: Trace | None) -> Result:
    import numpy as np

    from minidnn.measure.limits import check_memory, check_time
    from minidnn.measure.steps import needed_bytes, profile_inference, profile_training
    from minidnn.models import build

    what = f"profile {args.mode} {args.model}"
    # To find out what a batch needs, one picture goes through the network.
    check_memory(PER_INPUT * 4 * math.prod(args.input_shape), f"{what} on one picture")
    model: Module = build(
        args.model,
        num_classes=args.classes,
        input_shape=args.input_shape,
        rng=np.random.default_rng(0),
    )
    training, batch = args.mode == "train", (args.batch, *args.input_shape)
    check_memory(needed_bytes(model, batch, training=training), f"{what} --batch {args.batch}")

    def check(seconds: float) -> None:
        check_time(seconds * args.steps, TIME_LIMIT, f"{what} --steps {args.steps}")

    options: dict[str, Any] = {"steps": args.steps, "trace": trace, "check": check}
    if not training:
        return profile_inference(model, batch, **options)
    fused = not args.no_fuse
    return profile_training(model, batch, classes=args.classes, fused=fused, **options)


def _settings(args: argparse.Namespace) -> dict[str, Any]:
    return {
        "mode": args.mode,
        "model": args.model,
        "batch": args.batch,
        "input_shape": list(args.input_shape),
        "classes": args.classes,
        "fused": args.mode == "train" and not args.no_fuse,
    }


def _about(trace: Trace, path: Path) -> dict[str, Any]:
    return {"file": str(path), "left_out": trace.left_out, "note": trace.note}


def _rates(result: Result, batch: int) -> list[str]:
    seconds = result.step_seconds
    return [
        f"{batch / seconds:.1f} images/s, {2e-9 * result.macs:.2f} GFLOP a step, "
        f"{2e-9 * result.macs / seconds:.1f} GFLOP/s over the whole step"
    ]
