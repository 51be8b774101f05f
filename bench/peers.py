"""minidnn against PyTorch: ``python -m bench.peers train|infer [--network NAME] [--json]``.

The same network with the same weights on the same pictures, in minidnn and in PyTorch's modes:
eager in NCHW, eager in channels_last, and `torch.compile` (in channels_last, its faster layout
here; ``--modes`` takes ``compile_nchw`` too). Each side is a process of its own with the same
number of threads, and all must compute the same losses or logits before anything is timed. Then
they take turns (see `bench.duel`). A ratio is images per second, minidnn / PyTorch: its median
over rounds, and the interval that median lies in.

Memory is the most a side's process ever had resident, with a data set of CIFAR-10's size loaded
in each. The time to the first step counts from the start of the process, once with an empty
cache of compiled code, once with the cache this left behind.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from bench.duel import Side, SideError, take_turns
from minidnn.measure.machine import (
    check_equal,
    check_installed,
    count,
    default_threads,
    describe,
    surroundings,
)
from minidnn.measure.ratios import Ratio, Verdict, at_least, at_most, speed_ratio
from minidnn.measure.tables import Table, show, verdict_table

SAME = 1e-3  # relative: float32 rounding grows from step to step
STEPS = 3  # of which the losses must be the same
OURS = "minidnn"


class Peer(NamedTuple):
    """How to start a side, and the variable that says where it keeps compiled code."""

    module: str
    arguments: tuple[str, ...] = ()
    cache: str | None = None


MODES = {
    f"{how}_{layout}": Peer("bench.side_torch", (how, layout), cache)
    for how, cache in (("eager", None), ("compile", "TORCHINDUCTOR_CACHE_DIR"))
    for layout in ("nchw", "channels_last")
}
DEFAULT_MODES = ("eager_nchw", "eager_channels_last", "compile_channels_last")
PEERS = {OURS: Peer("bench.side_minidnn", cache="MINIDNN_CACHE_DIR"), **MODES}
ASKED = {"quicknet": 2.0, "plain_cnn": 1.0}


def flat(value: Any) -> list[float]:
    """Return the numbers of nested lists."""
    return [x for part in value for x in flat(part)] if isinstance(value, list) else [value]


def check_same(name: str, ours: list[Any], theirs: list[Any], what: str) -> None:
    """Raise unless both sides computed the same losses or logits in every step."""
    for step, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
        a, b = flat(mine), flat(other)
        far = max((abs(x - y) for x, y in zip(a, b, strict=False)), key=lambda d: (d != d, d))
        if len(a) != len(b) or not far <= SAME * max(map(abs, b)):
            raise SystemExit(
                f"minidnn and {name} do not compute the same network: {what} of step {step} are "
                f"{a[:3]} against {b[:3]}, farthest apart by {far:.3g}"
            )


class Settings(NamedTuple):
    """What is compared."""

    what: str
    network: str
    batch: int
    rounds: int
    threads: int
    modes: tuple[str, ...]
    cold: bool = True
    turn: float = 1.0


def say(text: str) -> None:
    """Tell people what takes so long."""
    print(text, file=sys.stderr, flush=True)


def start(name: str, settings: Settings, weights: Path, found: dict[str, Any]) -> Side:
    """Start a side that is ready to be timed; with an empty cache first, then with a full one."""
    peer = PEERS[name]
    job = {"what": settings.what, "network": settings.network, "batch": settings.batch}
    env = {}
    if peer.cache and settings.cold:
        env[peer.cache] = str(weights.parent / f"{name}_cache")
    # A user's own cache may hold anything; a side that keeps none is always warm.
    for cache in ("cold", "warm") if env else ("unknown" if peer.cache else "warm",):
        say(f"{name}: starting, batch {settings.batch}{', empty cache' * (cache == 'cold')}")
        side = Side(name, peer.module, *peer.arguments, threads=settings.threads, env=env)
        try:
            values = [side.ask("first", weights=str(weights), **job)]
            found[f"first_{cache}_seconds"] = round(side.age(), 2)
            if cache == "cold":
                found["peak_memory_cold"] = round(side.ask("about")["peak_memory"], 1)
                side.close()
        except BaseException:
            side.close()
            raise
    found["values"] = values + side.ask("more", steps=STEPS - 1)
    return side


def compare(settings: Settings) -> dict[str, Any]:
    """Time all sides in turns.

    Returns
    -------
    dict
        ``ratio`` against the fastest mode, and everything measured of each side; a mode that
        could not run has only ``failed`` there.
    """
    sides: dict[str, dict[str, Any]] = {name: {} for name in (OURS, *settings.modes)}
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        weights = folder / "weights.safetensors"
        with Side(OURS, PEERS[OURS].module, threads=settings.threads) as side:
            side.ask("save", network=settings.network, weights=str(weights))
        running: dict[str, Side] = {}
        for name, found in sides.items():
            try:
                running[name] = stack.enter_context(start(name, settings, weights, found))
            except SideError as error:
                if not name.startswith("compile"):
                    raise
                say(f"going on without {name}: {error}")
                sides[name] = {"failed": str(error)}
                continue
            if name != OURS:
                what = "losses" if settings.what == "train" else "logits"
                check_same(name, sides[OURS]["values"], found["values"], what)
        check_equal(settings.threads, {name: side.ask("about") for name, side in running.items()})
        turns = {
            name: partial(side.ask, "turn", at_least=settings.turn)
            for name, side in running.items()
        }
        seconds = take_turns(turns, settings.rounds)
        for name, side in running.items():
            sides[name] |= {"seconds": seconds[name], **side.ask("about")}
    return {**judge(sides, settings), "sides": sides}


def judge(sides: dict[str, dict[str, Any]], settings: Settings) -> dict[str, Any]:
    """Add to each side its speed and its ratio; return those against the best mode."""
    timed = {name: side for name, side in sides.items() if "seconds" in side}
    ours = timed[OURS]
    for name, side in timed.items():
        side["images_per_second"] = settings.batch / statistics.median(side["seconds"])
        if name != OURS:
            side["ratio"] = speed_ratio(ours["seconds"], side["seconds"])._asdict()
            side["memory_ratio"] = ours["peak_memory"] / side["peak_memory"]
        if settings.what == "infer":
            side.pop("values")
    # In a quiet run this is the mode with the most images per second; under noise ratios tell more.
    modes = [name for name in timed if name != OURS]
    best = min(modes, key=lambda name: timed[name]["ratio"]["median"])
    return {
        "ratio": timed[best]["ratio"]["median"],
        "ratio_low": timed[best]["ratio"]["low"],
        "ratio_high": timed[best]["ratio"]["high"],
        "best_mode": best,
        "memory_ratio": timed[best]["memory_ratio"],
    }


def judged(found: dict[str, Any], network: str) -> list[Verdict]:
    """Hold training against what was asked for."""
    ours = found["sides"][OURS]
    spread = f"{found['train_ratio_low']:.2f} to {found['train_ratio_high']:.2f}"
    verdicts = [
        at_least(
            f"{network}: training against {found['best_mode']}",
            ASKED[network],
            found["train_ratio"],
            spread,
        )
    ]
    if network != "quicknet":  # of which memory and the first step are asked
        return verdicts
    verdicts.append(at_most("peak memory against the same mode's", 0.7, found["memory_ratio"], "x"))
    for cache, limit in (("cold", 30.0), ("warm", 3.0)):
        if f"first_{cache}_seconds" in ours:
            verdicts.append(
                at_most(f"first step, {cache} cache", limit, ours[f"first_{cache}_seconds"], " s")
            )
    return verdicts


def train(settings: Settings) -> dict[str, Any]:
    """Compare training steps; ``train_ratio`` comes first."""
    found = compare(settings)
    names = ("ratio", "ratio_low", "ratio_high")
    found = {**{f"train_{name}": found.pop(name) for name in names}, **found}
    found["verdicts"] = [v._asdict() for v in judged(found, settings.network)]
    return found


def infer(settings: Settings) -> dict[str, Any]:
    """Compare forward passes, of a batch and of one picture; ``infer_ratio`` comes first."""
    batches = {batch: compare(settings._replace(batch=batch)) for batch in (settings.batch, 1)}
    return {
        "infer_ratio": batches[settings.batch]["ratio"],
        "infer_ratio_batch_1": batches[1]["ratio"],
        "batches": batches,
    }


def table(found: Mapping[str, Any], title: str) -> Table:
    """Return one comparison as a table with a row per side."""
    columns = ["", "images/s", "ms", "minidnn / this", "peak MiB", "imports", "minidnn / this"]
    columns += ["first, cold", "warm", "threads", "CPUs"]
    rows = []
    for name, side in found["sides"].items():
        if "failed" in side:
            rows.append([name, "failed"])
            continue
        rows.append(
            [
                name,
                f"{side['images_per_second']:.1f}",
                f"{1e3 * statistics.median(side['seconds']):.2f}",
                str(Ratio(**side["ratio"])) if "ratio" in side else "",
                f"{side['peak_memory']:.0f}",
                f"{side['imported_memory']:.0f}",
                f"{side['memory_ratio']:.2f}" if "memory_ratio" in side else "",
                *(
                    f"{side[key]:.1f} s" if (key := f"first_{cache}_seconds") in side else ""
                    for cache in ("cold", "warm")
                ),
                str(side["threads"]),
                ", ".join(map(str, side["affinity"] or ["any"])),
            ]
        )
    return Table(title, columns, rows)


def tables(found: Mapping[str, Any]) -> list[Table]:
    """Return what people read of the result."""
    what = f"{found['what']}, {found['network']}"
    if found["what"] == "infer":
        return [
            table(part, f"{what}, batch {batch}, {found['rounds']} rounds")
            for batch, part in found["batches"].items()
        ]
    title = f"{what}, batch {found['batch']}, {found['rounds']} rounds"
    return [table(found, title), verdict_table(found["verdicts"])]


def failures(found: Mapping[str, Any]) -> list[str]:
    """Return why modes are missing, as text."""
    parts = found["batches"].values() if found["what"] == "infer" else [found]
    return [side["failed"] for part in parts for side in part["sides"].values() if "failed" in side]


def parse(arguments: Sequence[str] | None = None) -> tuple[Settings, bool]:
    """Read the command line; the second value asks for JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.peers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("what", choices=["train", "infer"])
    parser.add_argument("--network", choices=sorted(ASKED), default="quicknet")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5, help="at least 5")
    parser.add_argument("--threads", type=int, default=default_threads())
    parser.add_argument(
        "--turn", type=float, default=1.0, help="seconds that a side steps in its turn, at least"
    )
    parser.add_argument("--modes", nargs="+", choices=list(MODES), default=DEFAULT_MODES)
    parser.add_argument(
        "--no-cold", action="store_true", help="use the user's caches; starts are warm only"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")
    args = parser.parse_args(arguments)
    if args.rounds < 5:
        parser.error("--rounds: a median with its spread needs at least 5")
    count(parser, args, "batch", "threads")
    settings = Settings(
        args.what,
        args.network,
        args.batch,
        args.rounds,
        args.threads,
        tuple(dict.fromkeys(args.modes)),
        not args.no_cold,
        args.turn,
    )
    return settings, args.json


def main() -> None:
    """Run one comparison and print it."""
    settings, as_json = parse()
    check_installed("torch", "peers")
    try:
        found = {"train": train, "infer": infer}[settings.what](settings)
    except SideError as error:
        raise SystemExit(str(error)) from None
    found |= settings._asdict() | surroundings(settings.threads, ("numpy", "numba", "torch"))
    if as_json:
        print(json.dumps(found, indent=1))
    else:
        show(tables(found), *failures(found), describe(found))


if __name__ == "__main__":
    main()
