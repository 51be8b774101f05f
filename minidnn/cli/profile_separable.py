"""``minidnn profile-separable``: separable against full convolutions, counted and measured."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from minidnn.cli.measuring import add_results, check_files, hand_over

if TYPE_CHECKING:
    from minidnn.measure.separable_report import Profile

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
        help="layers: a tiny one, QuickNet's widest of each stage, or all (default: full)",
    )
    parser.add_argument(
        "--from",
        dest="saved",
        type=Path,
        metavar="FILE",
        help="measure nothing: show and draw what -o has written there",
    )
    add_results(parser, "draw both, layer by layer, into a picture")


def run(args: argparse.Namespace) -> int:
    """Measure or read, then print, write and draw."""
    from minidnn.errors import ConfigError
    from minidnn.measure import results, separable_plot, separable_report
    from minidnn.measure.machine import describe
    from minidnn.measure.tables import show

    check_files(args)
    if args.saved:
        options = {"--batch": args.batch, "--quick": args.quick, "--size": args.size}
        for name, given in {**options, "-o": args.output}.items():
            if given:
                raise ConfigError(f"--from measures nothing and writes no JSON; leave out {name}")
        found, result = separable_report.read(args.saved)
    else:
        found = _measure(args)
        result = results.envelope(NAME, found.as_dict())
    machine = result["machine"]
    if args.plot:
        title = f"Separable against full 3x3 convolutions: {separable_report.place(machine)}"
        separable_plot.draw(found, args.plot, title=title)
    if hand_over(args, result):
        return 0
    texts = (*separable_report.texts(found), separable_report.caption(found, machine))
    show(separable_report.tables(found), *texts, describe(machine))
    return 0


def _measure(args: argparse.Namespace) -> Profile:
    from minidnn.measure import separable_report
    from minidnn.measure.peaks import known_peaks

    return separable_report.profile(
        known_peaks(),
        size=args.size or "full",
        batch=args.batch,
        quick=args.quick,
        tell=lambda what: print(f"measuring {what} ...", file=sys.stderr, flush=True),
    )
