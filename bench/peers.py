"""minidnn against others: ``python -m bench.peers train|infer [--network NAME] [--json]``.

The same network with the same weights on the same pictures, in minidnn and in

- PyTorch's modes: eager in NCHW, eager in channels_last, and `torch.compile` (in channels_last, its
  faster layout here; ``--modes`` takes ``compile_nchw`` too);
- for inference OpenVINO and ONNX Runtime, in float32 and int8, from an ONNX file of the network,
  each in the fastest of the ways it offers to run a batch.

Each side is a process of its own with the same number of threads. Before anything is timed all
must compute the same losses or logits; a quantised network is another one, whose logits must be
near, and the table says how near. Then they take turns (see `bench.duel`). A ratio is images per
second, minidnn / the other, of the same precision: its median over rounds, and the interval that
median lies in. A machine may be a sixth slower for some seconds, for all alike; rounds of
inference are short and many, so that such a time hits whole rounds.

Memory is the most a side's process ever had resident, with a data set of CIFAR-10's size loaded
in each. The time to the first step counts from the start of the process, once with an empty
cache of compiled code, once with the cache this left behind; files for engines are there already.

Of one picture also the latency of single calls is measured in turns, back to back and with the
idle gaps that a camera leaves between two calls.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bench.contenders import (
    INFERENCE_MODES,
    MODES,
    OURS,
    PEERS,
    TRAINING_MODES,
    Settings,
    is_int8,
    missing,
    ours,
)
from bench.duel import Side, SideError, take_turns
from bench.judging import (
    ASKED,
    check_near,
    check_same,
    judge,
    judge_gaps,
    judged,
    judged_inference,
)
from bench.peer_tables import failures, tables
from minidnn.measure.latency import CAMERA_GAP
from minidnn.measure.machine import (
    check_equal,
    check_installed,
    count,
    default_threads,
    describe,
    surroundings,
)
from minidnn.measure.tables import show

STEPS = 3  # of which the losses must be the same
PACKAGES: tuple[str, ...] = ("numpy", "numba", "torch")
ENGINE_PACKAGES = ("openvino", "nncf", "onnxruntime", "onnx")
WEIGHTS = "weights.safetensors"
TURNS = {"train": (5, 1.0), "infer": (15, 0.3)}  # rounds, and seconds of a turn


def say(text: str) -> None:
    """Tell people what takes so long."""
    print(text, file=sys.stderr, flush=True)


def prepare(settings: Settings, folder: Path) -> dict[str, str]:
    """Write the weights and files that sides start from; return why modes cannot run."""
    weights = str(folder / WEIGHTS)
    with Side(OURS, PEERS[OURS].module, *PEERS[OURS].arguments, threads=settings.threads) as side:
        side.ask("save", network=settings.network, weights=weights)
    failed = {name: reason for name in settings.modes if (reason := missing(name))}
    engines = [name for name in settings.modes if PEERS[name].engine and name not in failed]
    if engines:
        say(f"writing files for {', '.join(engines)}")
        # nncf would tell its makers that it was used.
        quiet = {"NNCF_CI": "1"}
        job = {"network": settings.network, "weights": weights, "files": str(folder)}
        try:
            with Side(
                "conversion", "bench.side_convert", threads=settings.threads, env=quiet
            ) as side:
                side.ask("convert", int8=any(map(is_int8, engines)), **job)
        except SideError as error:
            failed |= dict.fromkeys(engines, str(error))
    for reason in dict.fromkeys(failed.values()):
        say(f"going on without some modes: {reason}")
    return failed


def start(name: str, settings: Settings, folder: Path, found: dict[str, Any]) -> Side:
    """Start a side that is ready to be timed; with an empty cache first, then with a full one."""
    peer = PEERS[name]
    job: dict[str, Any] = {
        "what": settings.what,
        "network": settings.network,
        "batch": settings.batch,
    }
    job |= {"files": str(folder)} if peer.engine else {"weights": str(folder / WEIGHTS)}
    env = {}
    if peer.cache and settings.cold:
        env[peer.cache] = str(folder / f"{name}_{settings.batch}_cache")
    if peer.engine:
        say(f"{name}: trying its ways, batch {settings.batch}")
        with Side(name, peer.module, *peer.arguments, threads=settings.threads) as side:
            job["way"] = side.ask("tune", **job)
    # A user's own cache may hold anything; a side that keeps none is always warm.
    for cache in ("cold", "warm") if env else ("unknown" if peer.cache else "warm",):
        say(f"{name}: starting, batch {settings.batch}{', empty cache' * (cache == 'cold')}")
        side = Side(name, peer.module, *peer.arguments, threads=settings.threads, env=env)
        try:
            values = [side.ask("first", **job)]
            found[f"first_{cache}_seconds"] = round(side.age(), 2)
            if cache == "cold":
                found["peak_memory_cold"] = round(side.ask("about")["peak_memory"], 1)
                side.close()
        except BaseException:
            side.close()
            raise
    found["values"] = values + side.ask("more", steps=STEPS - 1)
    return side


def compare(settings: Settings, folder: Path, failed: dict[str, str]) -> dict[str, Any]:
    """Time all sides in turns.

    Parameters
    ----------
    settings : Settings
    folder : Path
        With the files that `prepare` wrote.
    failed : dict
        Why modes cannot run.

    Returns
    -------
    dict
        ``ratio`` against the fastest mode, and everything measured of each side; a mode that
        could not run has only ``failed`` there. Of one picture also ``gaps``.
    """
    names = (*ours(settings.what), *settings.modes)
    sides: dict[str, dict[str, Any]] = {
        name: {"failed": failed[name]} if name in failed else {} for name in names
    }
    found: dict[str, Any] = {}
    with contextlib.ExitStack() as stack:
        running: dict[str, Side] = {}
        for name in names:
            if name in failed:
                continue
            try:
                running[name] = stack.enter_context(start(name, settings, folder, sides[name]))
            except SideError as error:
                if not PEERS[name].spare:
                    raise
                say(f"going on without {name}: {error}")
                sides[name] = {"failed": str(error)}
                continue
            check(name, sides, settings.what)
        check_equal(settings.threads, {name: side.ask("about") for name, side in running.items()})
        turns = {
            name: partial(side.ask, "turn", at_least=settings.turn)
            for name, side in running.items()
        }
        seconds = take_turns(turns, settings.rounds)
        if settings.what == "infer" and settings.batch == 1:
            found["gaps"] = judge_gaps(time_gaps(running, settings))
        for name, side in running.items():
            sides[name] |= {"seconds": seconds[name], **side.ask("about")}
    return {**judge(sides, settings), **found, "sides": sides}


def check(name: str, sides: dict[str, dict[str, Any]], what: str) -> None:
    """Raise unless a side computes what minidnn's first side does."""
    values, theirs = sides[OURS]["values"], sides[name]["values"]
    if is_int8(name):
        sides[name] |= check_near(name, values, theirs)
    elif name != OURS:
        check_same(name, values, theirs, "losses" if what == "train" else "logits")


def time_gaps(running: dict[str, Side], settings: Settings) -> dict[str, list[Any]]:
    """Time single calls of minidnn and OpenVINO in turns, without and with idle gaps."""
    say("timing single calls")
    asks = {
        name: partial(side.ask, "latencies", calls=settings.calls, gap=CAMERA_GAP)
        for name, side in running.items()
        if name.startswith((OURS, "openvino"))
    }
    return take_turns(asks, settings.rounds)


def train(settings: Settings) -> dict[str, Any]:
    """Compare training steps; ``train_ratio`` comes first."""
    with tempfile.TemporaryDirectory() as folder:
        found = compare(settings, Path(folder), prepare(settings, Path(folder)))
    names = ("ratio", "ratio_low", "ratio_high")
    found = {**{f"train_{name}": found.pop(name) for name in names}, **found}
    found["verdicts"] = [v._asdict() for v in judged(found, settings.network)]
    return found


def infer(settings: Settings) -> dict[str, Any]:
    """Compare forward passes, of a batch and of one picture; ``infer_ratio`` comes first."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        failed = prepare(settings, folder)
        batches = {
            batch: compare(settings._replace(batch=batch), folder, failed)
            for batch in dict.fromkeys((settings.batch, 1))
        }
    found = {
        "infer_ratio": batches[settings.batch].get("ratio"),
        "infer_ratio_batch_1": batches[1].get("ratio"),
        "batches": batches,
        "gaps": batches[1].pop("gaps"),
    }
    if settings.network == "quicknet":  # of which numbers are asked
        verdicts = judged_inference(batches, found["gaps"])
        found["verdicts"] = [v._asdict() for v in verdicts]
    return found


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
    parser.add_argument("--rounds", type=int, help="at least 5; default: 5 for train, 15 for infer")
    parser.add_argument("--threads", type=int, default=default_threads())
    parser.add_argument(
        "--turn",
        type=float,
        help="seconds that a side steps in its turn, at least; default: 1 for train, 0.3 for infer",
    )
    parser.add_argument(
        "--calls", type=int, default=200, help="timed one by one in a turn, with and without gaps"
    )
    parser.add_argument("--modes", nargs="+", choices=list(MODES))
    parser.add_argument(
        "--no-cold", action="store_true", help="use the user's caches; starts are warm only"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")
    args = parser.parse_args(arguments)
    rounds, turn = TURNS[args.what]
    rounds = rounds if args.rounds is None else args.rounds
    if rounds < 5:
        parser.error("--rounds: a median with its spread needs at least 5")
    count(parser, args, "batch", "threads", "calls")
    modes = args.modes or (TRAINING_MODES if args.what == "train" else INFERENCE_MODES)
    for name in modes:
        if args.what == "train" and PEERS[name].engine:
            parser.error(f"--modes: {name} infers only")
    settings = Settings(
        args.what,
        args.network,
        args.batch,
        rounds,
        args.threads,
        tuple(dict.fromkeys(modes)),
        not args.no_cold,
        turn if args.turn is None else args.turn,
        args.calls,
    )
    return settings, args.json


def main() -> None:
    """Run one comparison and print it."""
    settings, as_json = parse()
    check_installed("torch", "peers")
    packages = PACKAGES
    if any(PEERS[name].engine for name in settings.modes):
        packages += tuple(name for name in ENGINE_PACKAGES if find_spec(name))
    try:
        found = {"train": train, "infer": infer}[settings.what](settings)
    except SideError as error:
        raise SystemExit(str(error)) from None
    found |= settings._asdict() | surroundings(settings.threads, packages)
    if as_json:
        print(json.dumps(found, indent=1))
    else:
        show(tables(found), *failures(found), describe(found))


if __name__ == "__main__":
    main()
