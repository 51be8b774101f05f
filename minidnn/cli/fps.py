"""``minidnn fps``: how fast a network serves pictures, the slow calls too."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from minidnn.cli.session import add_threads, open_model, set_threads

if TYPE_CHECKING:
    from minidnn.measure.serving import Case
    from minidnn.plan.compiler import Plan

NAME = "fps"
HELP = "how fast a network serves: latency percentiles, frames per second, joules"

# Of the paper: separable against full convolutions.
COMPARED = ("quicknet", "plain_cnn")
SHAPE = (32, 32, 3)
LONGEST, IDLEST = 3600, 10_000
CALIBRATION = 64  # random pictures, for random weights


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "model", nargs="?", metavar="MODEL",
        help="a compiled model, the folder of a run, or a network's name (random weights)",
    )  # fmt: skip
    parser.add_argument(
        "--table", action="store_true",
        help="the paper's comparison: quicknet and plain_cnn, float32 and int8, 1 and 2 threads",
    )  # fmt: skip
    parser.add_argument(
        "--batch", type=int, default=1, metavar="N", help="pictures of a call (default: 1)"
    )
    parser.add_argument(
        "--seconds", type=float, metavar="S", help="to measure for (default: 10; the table 60)"
    )
    parser.add_argument(
        "--idle", type=float, default=5.0, metavar="MS",
        help="milliseconds without work before each call, in half of the time (default: 5)",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print exact numbers for programs")
    add_threads(parser)


def run(args: argparse.Namespace) -> int:
    """Warm up, measure, print."""
    set_threads(args.threads)
    _check(args)
    from minidnn.measure.machine import describe
    from minidnn.measure.results import envelope
    from minidnn.measure.serving import measure
    from minidnn.measure.serving_report import tables, texts
    from minidnn.measure.tables import show

    if args.table:
        cases, about = _compared(args.batch, args.threads), "random weights"
    else:
        plan, about = _open(args.model)
        cases = [_case(args.model, plan, args.batch)]
    seconds = args.seconds or (60.0 if args.table else 10.0)
    found = measure(cases, batch=args.batch, seconds=seconds, idle=args.idle / 1e3)
    result = envelope(NAME, {"weights": about, **found})
    if args.json:
        print(json.dumps(result, indent=2))
    else:
        print(f"{about}\n")
        show(tables(result), *texts(result), describe(result["machine"]))
    return 0


def _check(args: argparse.Namespace) -> None:
    from minidnn.errors import ConfigError

    if args.table == (args.model is not None):
        raise ConfigError("expected either MODEL or --table")
    if args.batch < 1:
        raise ConfigError(f"--batch: expected at least 1, got {args.batch}")
    if args.seconds is not None and not 0 < args.seconds <= LONGEST:
        raise ConfigError(
            f"--seconds: expected more than 0 and at most {LONGEST}, got {args.seconds:g}"
        )
    if not 0 <= args.idle <= IDLEST:
        raise ConfigError(f"--idle: expected 0 to {IDLEST} milliseconds, got {args.idle:g}")


def _open(model: str) -> tuple[Plan, str]:
    """Return a plan, and a line that says of what."""
    from minidnn import runs
    from minidnn.errors import CheckpointError
    from minidnn.kernels.ladder import unknown
    from minidnn.models import MODELS
    from minidnn.plan.compiler import Plan, compile

    if model in MODELS:
        return _float32(model), f"{model}: random weights"
    try:
        state, _, found, about = open_model(model, "best", averaged=True)
    except CheckpointError as error:
        if any(mark in model for mark in "/\\."):
            raise
        raise CheckpointError(f"{error}; as a network: {unknown('name', model, MODELS)}") from None
    if isinstance(found, Plan):
        return found, about
    return compile(found, (1, *runs.input_shape(state))), about


def _network(name: str) -> Any:
    import numpy as np

    from minidnn.models import build

    return build(name, input_shape=SHAPE, rng=np.random.default_rng(0)).eval()


def _float32(name: str) -> Plan:
    from minidnn.plan.compiler import compile

    return compile(_network(name), (1, *SHAPE))


def _int8(name: str) -> Plan:
    import minidnn

    pictures = _pictures((CALIBRATION, *SHAPE))
    plan: Plan = minidnn.quantize(_network(name), pictures, input_shape=(1, *SHAPE))
    return plan


def _pictures(shape: tuple[int, ...]) -> Any:
    import numpy as np

    return np.random.default_rng(1).standard_normal(shape, np.float32)


def _case(name: str, plan: Plan, batch: int) -> Case:
    from minidnn.measure.serving import Case
    from minidnn.threads import num_threads

    precision = "int8" if plan.program.codes else "float32"
    return Case(name, precision, num_threads(), _ready(plan, batch))


def _ready(plan: Plan, batch: int) -> Callable[[], object]:
    """Return a call of the plan, compiled on all cores; refuse what memory has no room for."""
    import math

    from minidnn.measure.limits import check_memory
    from minidnn.warmup import warm_up

    what = f"fps --batch {batch}"
    check_memory(8 * batch * math.prod(plan.input_shape), what)
    check_memory(plan.layout(batch).size, what)
    pictures = _pictures((batch, *plan.input_shape))

    def call() -> object:
        return plan(pictures)

    warm_up(call)
    return call


def _compared(batch: int, most: int | None) -> list[Case]:
    """Return the table's cases, with one thread and with as many as were asked for."""
    from minidnn.measure.serving import Case
    from minidnn.threads import max_threads

    most = most or min(2, max_threads())
    cases = []
    for name in COMPARED:
        for precision, make in (("float32", _float32), ("int8", _int8)):
            call = _ready(make(name), batch)
            for threads in dict.fromkeys((1, most)):
                cases.append(Case(name, precision, threads, call))
    return cases
