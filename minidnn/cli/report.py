"""``minidnn report``: one page about this machine and these kernels, for a screen or paper."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

NAME = "report"
HELP = "measure a bit of everything, and draw one interactive page"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("report.html"),
        metavar="FILE",
        help="the page (default: report.html)",
    )
    parser.add_argument(
        "--size",
        choices=("classroom", "stages", "full"),
        help="tiny shapes, QuickNet's widest of each stage (default), or all of QuickNet",
    )
    parser.add_argument(
        "--batch", type=int, metavar="N", help="images (default: 32, with --quick 8)"
    )
    parser.add_argument(
        "--quick", action="store_true", help="fewer images, fewer shapes, fewer turns"
    )
    parser.add_argument(
        "--save", type=Path, metavar="FILE", help="write the numbers there too, as JSON"
    )
    parser.add_argument(
        "--from",
        type=Path,
        dest="source",
        metavar="FILE",
        help="draw such numbers, and measure nothing",
    )


def run(args: argparse.Namespace) -> int:
    """Measure or read, then draw."""
    from minidnn.measure import results
    from minidnn.measure.report.page import page

    _check(args)
    found = results.read(args.source, NAME) if args.source else _measured(args)
    if args.save:
        results.write(args.save, found)
    text = page(found, str(args.source or NAME))
    results.write_text(args.output, text)
    print(f"{args.output}: open it in a browser; it needs no network")
    return 0


def _check(args: argparse.Namespace) -> None:
    """Say now, not after the measurements, what cannot work."""
    from minidnn.errors import ConfigError

    if args.source:
        given = {"--size": args.size, "--batch": args.batch, "--quick": args.quick or None}
        for name, value in {**given, "--save": args.save}.items():
            if value is not None:
                raise ConfigError(f"{name}: measures, and --from does not; give one of the two")
    for name, path in (("--output", args.output), ("--save", args.save)):
        if path is not None and (path.is_dir() or not path.parent.is_dir()):
            raise ConfigError(f"{name}: expected a file in a folder that exists, got {path}")
    if args.save is not None and args.save.absolute() == args.output.absolute():
        raise ConfigError(f"--save: expected another file than --output, got {args.save} for both")


def _measured(args: argparse.Namespace) -> dict[str, Any]:
    from minidnn.measure import results
    from minidnn.measure.report.collect import collect

    found = collect(
        size=args.size or "stages",
        batch=args.batch,
        quick=args.quick,
        tell=lambda what: print(f"measuring {what} ...", file=sys.stderr, flush=True),
    )
    return results.envelope(NAME, found)
