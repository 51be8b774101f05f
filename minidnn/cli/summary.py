"""``minidnn summary``: a model's layers, parameters, multiply-accumulates and bytes."""

from __future__ import annotations

import argparse
import json

NAME = "summary"
HELP = "count a model's parameters, MACs and bytes, layer by layer"


def shape(text: str) -> tuple[int, ...]:
    """Read '32,32,3' or '32x32x3'."""
    try:
        sizes = tuple(int(size) for size in text.replace("x", ",").split(","))
    except ValueError:
        sizes = ()
    if not sizes or min(sizes) < 1:
        raise argparse.ArgumentTypeError(f"expected sizes such as 32,32,3 (H,W,C), got {text!r}")
    return sizes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("model", metavar="MODEL", help="a model's name, such as quicknet")
    parser.add_argument(
        "--input-shape",
        type=shape,
        default=(32, 32, 3),
        metavar="H,W,C",
        help="size of one picture (default: 32,32,3)",
    )
    parser.add_argument("--classes", type=int, default=10, metavar="N", help="default: 10")
    parser.add_argument("--json", action="store_true", help="print exact counts for programs")


def run(args: argparse.Namespace) -> int:
    """Print the summary."""
    from minidnn.measure.summary import summarize
    from minidnn.models import build

    model = build(args.model, num_classes=args.classes, input_shape=args.input_shape)
    summary = summarize(model, args.input_shape)
    if args.json:
        print(json.dumps(summary.as_dict(), indent=2))
        return 0
    from rich.console import Console

    console = Console()
    console.print(summary.table())
    console.print(summary.totals(), highlight=False, markup=False)
    return 0
