"""What commands share that time kernels under this machine's peaks: options, checks, results."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any


def add_batch(parser: argparse.ArgumentParser) -> None:
    """Declare how many images are measured on."""
    parser.add_argument("--batch", type=int, default=8, metavar="N", help="images (default: 8)")


def add_limit(parser: argparse.ArgumentParser, seconds: float, what: str, note: str = "") -> None:
    """Declare how long it may take."""
    parser.add_argument(
        "--limit",
        type=float,
        default=seconds,
        metavar="SECONDS",
        help=f"time {what} may take{note} (default: {seconds:g})",
    )


def add_results(parser: argparse.ArgumentParser, picture: str) -> None:
    """Declare where results go; `picture` says what is drawn."""
    parser.add_argument("--json", action="store_true", help="print exact numbers for programs")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="write the JSON there")
    parser.add_argument("--plot", type=Path, metavar="FILE", help=picture)


def check_amounts(args: argparse.Namespace) -> None:
    """Raise unless there are images and time.

    Raises
    ------
    ConfigError
    """
    from minidnn.errors import ConfigError

    if args.batch < 1 or not args.limit > 0:
        raise ConfigError("--batch: expected at least 1; --limit: more than 0")


def check_files(args: argparse.Namespace) -> None:
    """Raise unless the files asked for can be written: now, not after the measurements.

    Raises
    ------
    ConfigError, MissingExtraError
    """
    from minidnn.plots import check_folder, check_picture

    if args.output:
        check_folder(args.output)
    if args.plot:
        check_picture(args.plot)


def hand_over(args: argparse.Namespace, result: dict[str, Any]) -> bool:
    """Write and print the JSON where it was asked for; tell whether it was printed."""
    from minidnn.measure import results

    if args.output:
        results.write(args.output, result)
    if args.json:
        print(json.dumps(result, indent=2))
    return bool(args.json)
