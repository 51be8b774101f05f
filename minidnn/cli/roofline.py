"""``minidnn roofline``: this machine's peaks, and how far below them each kernel is."""

from __future__ import annotations

import argparse

from minidnn.cli import measuring

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
    measuring.add_batch(parser)
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
    measuring.add_limit(parser, 300, "all kernels")
    measuring.add_results(parser, "draw the roofline")


def run(args: argparse.Namespace) -> int:
    """Measure, then print, write and draw."""
    from minidnn.measure import results, roofline, roofline_plot
    from minidnn.measure.machine import describe
    from minidnn.measure.peaks import as_json, known_peaks
    from minidnn.measure.tables import show

    measuring.check_amounts(args)
    measuring.check_files(args)
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
    if measuring.hand_over(args, result):
        return 0
    tables = [*roofline.peak_tables(peaks), roofline.table(points, args.batch)]
    show(tables, roofline.NOTE, where)
    return 0
