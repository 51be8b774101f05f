"""``minidnn inspect``: whether a kernel vectorised, read from its machine code."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from minidnn.measure.inspection import Inspected

NAME = "inspect"
HELP = "show what a kernel's hot loop became in machine code, and say whether it vectorised"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "kernel",
        metavar="KERNEL[:RUNG]",
        help="such as prelu.forward:naive; without a rung, the one that runs at this size",
    )
    parser.add_argument(
        "--size",
        choices=("classroom", "stages", "full"),
        default="stages",
        help="of the layers it is compiled for (default: stages)",
    )
    parser.add_argument(
        "--isa",
        choices=("avx512", "avx2", "portable"),
        help="compile for these instructions, which this CPU need not have (default: this CPU's)",
    )
    parser.add_argument("--asm", action="store_true", help="print the hot loop itself")
    parser.add_argument("--json", action="store_true", help="print everything for programs")


def run(args: argparse.Namespace) -> int:
    """Print the hot loops of each compiled function, and a verdict."""
    from minidnn.measure.inspection import NOTHING, inspect
    from minidnn.measure.results import envelope
    from minidnn.measure.tables import show

    ladder, rung = _chosen(args.kernel, args.size)
    found = inspect(ladder, rung, args.size, args.isa)
    if args.json:
        result = {
            "kernel": ladder,
            "rung": rung,
            "size": args.size,
            "verdict": found[0].verdict if found else NOTHING,
            "functions": [one.as_dict(args.asm) for one in found],
        }
        print(json.dumps(envelope("inspect", result), indent=2))
        return 0
    print(f"{ladder}:{rung}")
    if not found:
        print(NOTHING)
    for one in found:
        print()
        show([one.table()], "\n".join([*one.texts(), *(_assembly(one) if args.asm else [])]))
    return 0


def _assembly(one: Inspected) -> list[str]:
    if not one.loops:
        return []
    loop = one.loops[0]
    return ["", f"{loop.label}:", *(f"    {i.text}" for i in loop.instructions)]


def _chosen(text: str, size: str) -> tuple[str, str]:
    """Return the ladder and the rung that a name stands for.

    Raises
    ------
    ConfigError
        If there is no such ladder or rung.
    """
    from minidnn.errors import ConfigError
    from minidnn.kernels.ladder import load_all, unknown
    from minidnn.measure.shapes import SIZES
    from minidnn.measure.workloads import workloads

    kernel, _, rung = text.partition(":")
    ladders = load_all()
    short = (name for name in ladders if name.partition(".")[0] == kernel)
    kernel = kernel if kernel in ladders else next(short, kernel)
    if kernel not in ladders:
        raise ConfigError(unknown("kernel", kernel, ladders))
    ladder = ladders[kernel]
    if rung and rung not in ladder.rungs:
        raise ConfigError(unknown(f"rung of {kernel}", rung, ladder.rungs))
    if not rung:
        work = workloads(SIZES[size], batch=1)[kernel][-1]
        rung = ladder.choose(*work.drawn(), **work.settings)
    return kernel, rung
