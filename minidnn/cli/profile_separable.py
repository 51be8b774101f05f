"""``minidnn profile-separable``: separable against full convolutions, counted and measured."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

NAME = "profile-separable"
HELP = "measure separable against full convolutions, layer by layer and in whole networks"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--batch", type=int, metavar="N", help="images (default: 64, with --quick 16)"
    )
    parser.add_argument("--quick", action="store_true", help="fewer images, fewer turns")
    parser.add_argument(
        "--size",
        choices=("classroom", "stages", "full"),
        default="full",
        help="layers: a tiny one, QuickNet's widest of each stage, or all (default: full)",
    )
    parser.add_argument("--json", action="store_true", help="print exact numbers for programs")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="write the JSON there")
    parser.add_argument(
        "--plot", type=Path, metavar="FILE", help="draw predicted and measured ratios"
    )


def run(args: argparse.Namespace) -> int:
    """Measure, then print, write and draw."""
    from minidnn.measure import results, separable_report
    from minidnn.measure.machine import describe
    from minidnn.measure.peaks import known_peaks
    from minidnn.measure.tables import show
    from minidnn.plots import new_figure

    if args.plot:
        new_figure(1, 1)  # says now, not after the measurements, that it cannot
    found = separable_report.profile(
        known_peaks(),
        size=args.size,
        batch=args.batch,
        quick=args.quick,
        tell=lambda what: print(f"measuring {what} ...", file=sys.stderr, flush=True),
    )
    result = results.envelope(NAME, found.as_dict())
    where = describe(result["machine"])
    if args.plot:
        separable_report.draw(found, args.plot, title=where)
    if args.output:
        results.write(args.output, result)
    if args.json:
        print(json.dumps(result, indent=2))
        return 0
    show(separable_report.tables(found), *separable_report.texts(found), where)
    return 0
