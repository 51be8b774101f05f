"""``minidnn ladder``: an op's rungs against each other and against this machine's peaks."""

from __future__ import annotations

import argparse

from minidnn.cli import measuring

NAME = "ladder"
HELP = "time an op's rungs, from naive to fastest, against this machine's peaks"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("op", metavar="OP", help="such as depthwise, depthwise.backward, gemm.nn")
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--shape",
        metavar="SHAPE",
        help="28x28x64, or '28x28x64->128' for channels in and out (default: one of QuickNet's)",
    )
    where.add_argument(
        "--size",
        choices=("classroom", "stages", "full"),
        help="all shapes of a set: tiny, QuickNet's widest of each stage, or all of QuickNet",
    )
    measuring.add_batch(parser)
    parser.add_argument(
        "--rung", action="append", default=[], metavar="NAME", help="only this one; may be repeated"
    )
    measuring.add_limit(parser, 30, "a rung", "; slower ones are estimated only")
    measuring.add_results(parser, "draw rates over sizes (without --shape: --size stages)")


def run(args: argparse.Namespace) -> int:
    """Measure, then print, write and draw."""
    from minidnn.measure import ladders, results, rungs
    from minidnn.measure.machine import describe
    from minidnn.measure.peaks import known_peaks
    from minidnn.measure.tables import show

    measuring.check_amounts(args)
    measuring.check_files(args)
    size = "stages" if args.plot and not (args.shape or args.size) else args.size
    # Rungs asked for by name are those of the op's own ladders.
    names = (rungs.ladders_of if args.rung else ladders.climbed)(args.op)
    chosen = [c for name in names for c in ladders.cases(name, shape=args.shape, size=size)]
    for name in names:
        ladders.rungs_of(name, args.rung)
    peaks = known_peaks()
    found = [
        ladders.measure(case, peaks, batch=args.batch, rungs=args.rung, limit=args.limit)
        for case in chosen
    ]
    result = results.envelope(
        NAME,
        {
            "op": args.op,
            "batch": args.batch,
            "peaks": {"flops": peaks.flops, "bandwidth": peaks.bandwidth},
            "ladders": [one.as_dict() for one in found],
        },
    )
    if args.plot:
        ladders.draw(found, peaks, args.plot, title=describe(result["machine"]))
    if measuring.hand_over(args, result):
        return 0
    top = f"peak {peaks.flops / 1e9:.4g} GFLOP/s, memory {peaks.bandwidth / 1e9:.3g} GB/s"
    fused = [ladders.CONTINUED] if set(names) - set(rungs.ladders_of(args.op)) else []
    where = describe(result["machine"])
    show([ladders.table(one) for one in found], ladders.NOTE, *fused, top, where)
    return 0
