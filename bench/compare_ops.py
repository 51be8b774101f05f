"""Each layer against PyTorch's, forward and backward: ``python -m bench.compare_ops``.

At QuickNet's shapes and batch 128, interleaved (see `bench.duel`). Prints the ratio of times
minidnn / PyTorch, so below 1 minidnn is faster; the range is that of the rounds.
"""

from __future__ import annotations

import argparse
import json

from bench.duel import Result, Side, default_threads, duel, surroundings
from bench.op_cases import CASES


def main() -> None:
    """Compare all layers, or those whose label holds a given text."""
    parser = argparse.ArgumentParser(prog="python -m bench.compare_ops", description=__doc__)
    parser.add_argument("only", nargs="?", default="", help="text that a layer's label holds")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=default_threads())
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")
    args = parser.parse_args()

    results = {}
    with (
        Side("bench.side_minidnn", args.threads) as ours,
        Side("bench.side_torch", args.threads) as theirs,
    ):
        about = surroundings(args.threads, {s.name: s.ask("about") for s in (ours, theirs)})
        if not args.json:
            print(json.dumps(about, indent=1))
            print(f"{'layer, forward + backward':<34}{'minidnn':>10}{'torch':>10}  ratio (range)")
        for case in (case for case in CASES if args.only in case.label):
            for side in (ours, theirs):  # compiles, fills caches
                side.ask("op", case=case, batch=args.batch)
            result = duel(ours, theirs, "op", rounds=args.rounds, case=case, batch=args.batch)
            results[case.label] = result._asdict()
            if not args.json:
                print(f"{case.label:<34}{row(result)}", flush=True)
    if args.json:
        print(json.dumps({"ops": results, **about}, indent=1))


def row(result: Result) -> str:
    """Return one line's numbers: both sides' milliseconds, their ratio and its range."""
    times = f"{result.ours * 1e3:>7.2f} ms{result.theirs * 1e3:>7.2f} ms"
    return f"{times}  {result.ratio:.2f} ({result.low:.2f} to {result.high:.2f})"


if __name__ == "__main__":
    main()
