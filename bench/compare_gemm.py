"""Matrix products against NumPy's BLAS: ``python -m bench.compare_gemm [--json]``.

All products of QuickNet's training at batch 128 (forward, input gradient, weight gradient),
each side in its own process, in turns (see `bench.duel`). NumPy writes to memory it was given;
minidnn takes its own from the arena. A ratio is GFLOP/s, minidnn / NumPy.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from bench.duel import Side, SideError, take_turns
from bench.gemm_cases import GemmCase, cases
from minidnn.measure.machine import check_equal, count, default_threads, describe, surroundings
from minidnn.measure.ratios import Ratio, Verdict, at_least, geometric_mean, speed_ratio
from minidnn.measure.tables import Table, show, verdict_table
from tests.closeness import assert_close

WARM_UP = 1


def start(threads: int) -> tuple[Side, Side]:
    """Start both sides."""
    return (
        Side("minidnn", "bench.ops_minidnn", threads=threads),
        Side("NumPy", "bench.ops_numpy", threads=threads),
    )


def check_product(case: GemmCase) -> None:
    """Raise unless minidnn's product is NumPy's, to the rounding of its longest sums."""
    a, b = case.draw()
    x, w = case.transposed(a.astype(np.float64), b.astype(np.float64))
    assert_close(case.ladder(a, b), x @ w, terms=x.shape[1], dtype=np.float32, what=case.label)


def measure(case: GemmCase, ours: Side, theirs: Side, rounds: int) -> dict[str, Any]:
    """Time one product on both sides in turns."""
    asks = {side.name: partial(side.ask, "gemm", case=case) for side in (ours, theirs)}
    take_turns(asks, WARM_UP)
    seconds = take_turns(asks, rounds)
    return {
        "minidnn": case.flops / statistics.median(seconds[ours.name]) / 1e9,
        "numpy": case.flops / statistics.median(seconds[theirs.name]) / 1e9,
        "ratio": speed_ratio(seconds[ours.name], seconds[theirs.name])._asdict(),
    }


def verdicts(products: Mapping[str, Any]) -> list[Verdict]:
    """Hold all products against what was asked for."""
    medians = {label: found["ratio"]["median"] for label, found in products.items()}
    worst = min(medians, key=lambda label: medians[label])
    return [
        at_least("matrix products, geometric mean", 1.0, geometric_mean(medians.values())),
        at_least("matrix products, worst", 0.9, medians[worst], worst),
    ]


def compare(batch: int, rounds: int, threads: int) -> dict[str, Any]:
    """Time all products."""
    for case in cases(1):
        check_product(case)
    ours, theirs = start(threads)
    with ours, theirs:
        about = {side.name: side.ask("about") for side in (ours, theirs)}
        check_equal(threads, about)
        products = {}
        for case in cases(batch):
            products[case.label] = measure(case, ours, theirs, rounds)
            print(case.label, Ratio(**products[case.label]["ratio"]), file=sys.stderr, flush=True)
    return {
        "products": products,
        "verdicts": [v._asdict() for v in verdicts(products)],
        "batch": batch,
        "rounds": rounds,
        "blas": about["NumPy"]["blas"],
        **surroundings(threads, ("numpy", "numba")),
    }


def tables(
    products: Mapping[str, Any], verdicts: Iterable[Mapping[str, Any]], common: Mapping[str, Any]
) -> list[Table]:
    """Return what people read of the result; `common` holds batch size, rounds and BLAS."""
    columns = ["rows x in x out", "minidnn GFLOP/s", "NumPy GFLOP/s", "ratio"]
    rows = [
        [label, f"{p['minidnn']:.0f}", f"{p['numpy']:.0f}", str(Ratio(**p["ratio"]))]
        for label, p in products.items()
    ]
    title = f"matrix products at batch {common['batch']}, {common['rounds']} rounds; "
    return [Table(title + common["blas"], columns, rows), verdict_table(verdicts)]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the comparison and print it."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.compare_gemm",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=default_threads())
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")
    args = parser.parse_args(arguments)
    count(parser, args, "batch", "rounds", "threads")
    try:
        found = compare(args.batch, args.rounds, args.threads)
    except SideError as error:
        raise SystemExit(str(error)) from None
    if args.json:
        print(json.dumps(found, indent=1))
    else:
        show(tables(found["products"], found["verdicts"], found), describe(found))


if __name__ == "__main__":
    main()
