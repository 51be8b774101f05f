"""``minidnn roofline``: this machine's peaks, and how far below them each kernel is."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

NAME = "roofline"
HELP = "measure this machine's peaks, and place kernels under them"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--op",
        action="append",
        default=[],
        metavar="OP",
        help="such as depthwise or gemm.nn; may be repeated (default: all)",
    )
    parser.add_argument(
        "--rung", metavar="NAME", help="of every kernel that has it (default: what runs here)"
    )
    parser.add_argument("--batch", type=int, default=8, metavar="N", help="images (default: 8)")
    parser.add_argument(
        "--size",
        choices=("classroom", "stages", "full"),
        default="stages",
        help="tiny shapes, QuickNet's widest of each stage (default), or all of QuickNet",
    )
    parser.add_argument("--each", action="store_true", help="one line per shape, not per kernel")
    parser.add_argument(
        "--again", action="store_true", help="measure the peaks even if they are known"
    )
    parser.add_argument(
        "--limit",
        type=float,
        default=300.0,
        metavar="SECONDS",
        help="time that all kernels may take (default: 300)",
    )
    parser.add_argument("--json", action="store_true", help="print exact numbers for programs")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="write the JSON there")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the roofline")


def run(args: argparse.Namespace) -> int:
    """Measure, then print, write and draw."""
    from minidnn.errors import ConfigError
    from minidnn.measure import results, roofline, roofline_plot
    from minidnn.measure.machine import describe
    from minidnn.measure.peaks import as_json, known_peaks
    from minidnn.measure.tables import show
    from minidnn.plots import check_folder, check_picture

    if args.batch < 1 or not args.limit > 0:
        raise ConfigError("--batch: expected at least 1; --limit: more than 0")
    if args.output:
        check_folder(args.output)
    if args.plot:
        check_picture(args.plot)
    cases = roofline.chosen_cases(args.op, args.rung, args.size)
    peaks = known_peaks(again=args.again)
    found = roofline.measure(cases, peaks, batch=args.batch, rung=args.rung, limit=args.limit)
    points = found if args.each else roofline.by_ladder(found)
    result = results.envelope(
        NAME,
        {
            "size": args.size,
            "batch": args.batch,
            "rung": args.rung,
            "peaks": as_json(peaks),
            "points": [one.as_dict() for one in found],
        },
    )
    where = describe(result["machine"])
    if args.plot:
        roofline_plot.draw(points, peaks, args.plot, title=f"batch {args.batch}; {where}")
    if args.output:
        results.write(args.output, result)
    if args.json:
        print(json.dumps(result, indent=2))
        return 0
    tables = [*roofline.peak_tables(peaks), roofline.table(points, args.batch)]
    show(tables, roofline.NOTE, where)
    return 0
