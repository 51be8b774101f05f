"""Each layer against PyTorch's: ``python -m bench.compare_ops [TEXT] [--json]``.

QuickNet's layers at batch 128, forward and backward, each side in its own process, in turns
(see `bench.duel`). PyTorch runs every layer in NCHW and in channels_last, and the faster one
counts. Both sides first show that they compute the same. A ratio is speed, minidnn / PyTorch:
above 1 minidnn is faster; its median over rounds, and the interval that median lies in. Both
sides get memory for their results in the timed part, and gradients start from none.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bench.duel import Side, SideError, take_turns
from bench.op_cases import CASES, GEMM_BOUND, NORM_ACT, OTHERS, STEM, OpCase
from minidnn.measure.machine import (
    check_equal,
    check_installed,
    count,
    default_threads,
    describe,
    surroundings,
)
from minidnn.measure.ratios import Ratio, Verdict, at_least, geometric_mean, speed_ratio
from minidnn.measure.tables import Table, show, verdict_table

OURS = "minidnn"
WARM_UP = 1
CHECK_BATCH = 4
SAME = 1e-3  # of an array's norm; rounding may turn single values over a kink
PASSES = ("forward", "backward")
SEPARATE = ("batch norm", "prelu")  # QuickNet trains with both in one


def start(threads: int) -> tuple[Side, Side]:
    """Start both sides."""
    return (
        Side(OURS, "bench.ops_minidnn", threads=threads),
        Side("PyTorch", "bench.ops_torch", threads=threads),
    )


def check_same(label: str, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> None:
    """Raise unless two layers gave the same output and gradients."""
    if set(ours) != set(theirs):
        raise SystemExit(f"{label}: gradients of {sorted(ours)} against {sorted(theirs)}")
    for name, want in theirs.items():
        got = ours[name]
        far = np.linalg.norm(got - want.reshape(got.shape)) if got.size == want.size else np.inf
        if not far <= SAME * np.linalg.norm(want):
            raise SystemExit(f"{label}: {name} is not what PyTorch computes, off by {far:.3g}")


def check_layer(case: OpCase, ours: Side, theirs: Side) -> None:
    """Raise unless both sides compute the same layer; dropout draws its own masks."""
    if case.kind == "dropout":
        return
    with tempfile.TemporaryDirectory() as folder:
        state, mine, other = (str(Path(folder) / name) for name in ("state", "a.npz", "b.npz"))
        for side, result in ((ours, mine), (theirs, other)):
            side.ask("outputs", case=case, batch=CHECK_BATCH, state=state, result=result)
        with np.load(mine) as a, np.load(other) as b:
            check_same(case.label, dict(a), dict(b))


def measure(case: OpCase, ours: Side, theirs: Side, batch: int, rounds: int) -> dict[str, Any]:
    """Time one layer on both sides in turns."""
    layouts = ("nchw", "channels_last") if case.size else ("nchw",)
    asks = {OURS: partial(ours.ask, "op", case=case, batch=batch)} | {
        layout: partial(theirs.ask, "op", case=case, batch=batch, layout=layout)
        for layout in layouts
    }
    take_turns(asks, WARM_UP)
    return judge(case, take_turns(asks, rounds))


def judge(case: OpCase, seconds: Mapping[str, list[Any]]) -> dict[str, Any]:
    """Return medians per side, and ratios against the layout that is faster over both passes."""
    ours = [sum(passes) for passes in seconds[OURS]]
    ratios = {
        layout: speed_ratio(ours, [sum(passes) for passes in both])
        for layout, both in seconds.items()
        if layout != OURS
    }
    best = min(ratios, key=lambda layout: ratios[layout].median)
    sides = {
        side: {name: statistics.median(pair[i] for pair in pairs) for i, name in enumerate(PASSES)}
        for side, pairs in seconds.items()
    }
    parts = {
        f"{name}_ratio": speed_ratio(
            [passes[i] for passes in seconds[OURS]], [passes[i] for passes in seconds[best]]
        )._asdict()
        for i, name in enumerate(PASSES)
    }
    return {
        "kind": case.kind,
        "group": case.group,
        "times": case.times,
        "seconds": sides,
        "layout": best,
        "ratio": ratios[best]._asdict(),
        **parts,
    }


def total(ops: Iterable[Mapping[str, Any]], left_out: Sequence[str] = ()) -> float:
    """Return the ratio of the layers' summed times, each counted as often as QuickNet has it."""
    ours = theirs = 0.0
    for op in ops:
        if op["kind"] not in left_out:
            ours += op["times"] * sum(op["seconds"][OURS].values())
            theirs += op["times"] * sum(op["seconds"][op["layout"]].values())
    return theirs / ours


def verdicts(ops: Mapping[str, Any]) -> list[Verdict]:
    """Hold the layers that were measured against what was asked for."""
    found = []
    groups = {
        group: {label: Ratio(**op["ratio"]) for label, op in ops.items() if op["group"] == group}
        for group in ("GEMM-bound", "others")
    }
    if bound := groups["GEMM-bound"]:
        worst = min(bound, key=lambda label: bound[label].median)
        found.append(at_least("GEMM-bound layers, worst", 0.95, bound[worst].median, worst))
    if others := groups["others"]:
        worst = min(others, key=lambda label: others[label].high)
        what = "other layers, worst by the interval's upper end"
        found.append(at_least(what, 1.0, others[worst].high, worst))
        mean = geometric_mean(ratio.median for ratio in others.values())
        found.append(at_least("other layers, geometric mean", 1.5, mean))
    if {op["kind"] for op in ops.values()} >= {*GEMM_BOUND, *OTHERS}:
        what = "QuickNet's layers, weighted by time"
        found.append(at_least(f"{what}, {NORM_ACT} in one", 1.5, total(ops.values(), SEPARATE)))
        found.append(at_least(f"{what}, each on its own", 1.5, total(ops.values(), [NORM_ACT])))
    return found


def compare(only: str, batch: int, rounds: int, threads: int) -> dict[str, Any]:
    """Time all layers whose label holds a given text."""
    chosen = [case for case in CASES if only in case.label]
    if not chosen:
        raise SystemExit(f"no layer's label holds {only!r}; one is {CASES[0].label!r}")
    ops = {}
    ours, theirs = start(threads)
    with ours, theirs:
        check_equal(threads, {side.name: side.ask("about") for side in (ours, theirs)})
        for case in chosen:
            check_layer(case, ours, theirs)
            ops[case.label] = measure(case, ours, theirs, batch, rounds)
            print(case.label, Ratio(**ops[case.label]["ratio"]), file=sys.stderr, flush=True)
    return {
        "ops": ops,
        "verdicts": [v._asdict() for v in verdicts(ops)],
        "batch": batch,
        "rounds": rounds,
        **surroundings(threads, ("numpy", "numba", "torch")),
    }


def by_kind(ops: Mapping[str, Any]) -> Table:
    """Return a table with a row per kind of layer."""
    kinds: dict[str, list[dict[str, Any]]] = {}
    for op in ops.values():
        kinds.setdefault(op["kind"], []).append(op)
    rows = []
    for kind, of in kinds.items():
        medians = [op["ratio"]["median"] for op in of]
        weighted = total([{**op, "times": op["times"] or 1} for op in of])
        rows.append(
            [
                kind + (" (stem)" if kind == STEM else ""),
                of[0]["group"],
                str(len(of)),
                f"{geometric_mean(medians):.2f}",
                f"{weighted:.2f}",
                f"{min(medians):.2f}",
            ]
        )
    columns = ["kind of layer", "group", "shapes", "geometric mean", "by time", "worst"]
    return Table("speed by kind, minidnn / PyTorch", columns, rows)


def tables(
    ops: Mapping[str, Any], verdicts: Iterable[Mapping[str, Any]], common: Mapping[str, Any]
) -> list[Table]:
    """Return what people read of the result; `common` holds the batch size and the rounds."""
    columns = ["layer", "group", "minidnn ms", "PyTorch ms", "layout", "speed ratio"]
    columns += ["forward", "backward"]
    rows = []
    for label, op in ops.items():
        times = [sum(op["seconds"][side].values()) * 1e3 for side in (OURS, op["layout"])]
        rows.append(
            [
                label,
                op["group"],
                *(f"{t:.2f}" for t in times),
                op["layout"],
                str(Ratio(**op["ratio"])),
                *(f"{op[f'{name}_ratio']['median']:.2f}" for name in PASSES),
            ]
        )
    title = f"layers forward and backward, batch {common['batch']}, {common['rounds']} rounds"
    return [Table(title, columns, rows), by_kind(ops), verdict_table(verdicts)]


def main(arguments: Sequence[str] | None = None) -> None:
    """Compare all layers, or those whose label holds a given text."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.compare_ops",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("only", nargs="?", default="", help="text that a layer's label holds")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=default_threads())
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")
    args = parser.parse_args(arguments)
    count(parser, args, "batch", "rounds", "threads")
    check_installed("torch", "peers")
    try:
        found = compare(args.only, args.batch, args.rounds, args.threads)
    except SideError as error:
        raise SystemExit(str(error)) from None
    if args.json:
        print(json.dumps(found, indent=1))
    else:
        show(tables(found["ops"], found["verdicts"], found), describe(found))


if __name__ == "__main__":
    main()
