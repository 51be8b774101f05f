"""``minidnn bench``: times of rungs, and comparisons of rungs, commits and machines."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from minidnn.cli.session import add_threads, set_threads

NAME = "bench"
HELP = "time kernels, and compare two rungs, two commits or two machines"

SIZES = ("classroom", "stages", "full")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare ``run`` and ``compare``."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    run = actions.add_parser("run", help="time rungs of an op in turns, and keep every round")
    run.add_argument("op", metavar="OP", help="an op or one direction of it: depthwise.forward")
    run.add_argument(
        "--rung", action="append", default=[], metavar="R", help="again for more (default: all)"
    )
    compare = actions.add_parser(
        "compare",
        help="faster, slower or inconclusive?",
        description="Compare OP:RUNG with OP:RUNG, FILE with FILE (of `minidnn bench run -o`), "
        "or OP in two commits. The ratio says how many times as fast the second is.",
    )
    compare.add_argument(
        "what", nargs="+", metavar="A B", help="OP:RUNG or FILE.json, twice; OP with --commits"
    )
    compare.add_argument(
        "--commits", nargs=2, metavar=("REV1", "REV2"), help="of the repository of this folder"
    )
    for action in (run, compare):
        action.add_argument("--batch", type=int, metavar="N", help="images (default: 1)")
        action.add_argument(
            "--size", choices=SIZES, help="which of QuickNet's shapes (default: stages)"
        )
        action.add_argument("--rounds", type=int, metavar="N", help="turns of each (default: 21)")
        action.add_argument(
            "--limit", type=float, metavar="SECONDS", help="refuse more (default: 900)"
        )
        action.add_argument("-o", "--out", metavar="FILE", help="write the numbers as JSON")
        action.add_argument("--json", action="store_true", help="print JSON instead of a table")
        add_threads(action)


def run(args: argparse.Namespace) -> int:
    """Measure, print, and write if asked."""
    from minidnn.errors import ConfigError

    if args.out and not Path(args.out).absolute().parent.is_dir():
        raise ConfigError(f"--out: no folder {Path(args.out).absolute().parent}")
    set_threads(args.threads)
    kind, found, table, lines = (_run if args.action == "run" else _compare)(args)
    from minidnn.measure.results import envelope, write
    from minidnn.measure.tables import show

    result = envelope(kind, found)
    if args.out:
        write(Path(args.out), result)
    if args.json:
        print(json.dumps(result, indent=2))
    else:
        show([table], *lines)
    return 0


def _settings(args: argparse.Namespace) -> dict[str, Any]:
    """Return the settings that were given; what measures knows the others."""
    names = ("batch", "size", "rounds", "limit")
    return {name: getattr(args, name) for name in names if getattr(args, name) is not None}


def _run(args: argparse.Namespace) -> tuple[str, dict[str, Any], Any, list[str]]:
    from minidnn.measure import rungs
    from minidnn.measure.compare import RUN

    found = rungs.run(args.op, args.rung, **_settings(args))
    return RUN, found, rungs.table(found), [f"{found['rounds']} rounds in turns; medians"]


def _compare(args: argparse.Namespace) -> tuple[str, dict[str, Any], Any, list[str]]:
    from minidnn.errors import ConfigError
    from minidnn.measure import commits, compare, rungs

    wanted = 1 if args.commits else 2
    if len(args.what) != wanted:
        expected = "one OP with --commits REV1 REV2" if args.commits else "two things to compare"
        raise ConfigError(f"expected {expected}, got {len(args.what)}: {' '.join(args.what)}")
    settings = _settings(args)
    if args.commits:
        first, second = args.commits
        found = commits.compare((first, second), *args.what, **settings)
    elif any(map(rungs.is_file, args.what)):
        if settings:
            raise ConfigError(f"--{next(iter(settings))}: files hold what was measured before")
        found = compare.compare_files(*map(Path, args.what))
    else:
        found = rungs.compare(*args.what, **settings)
    return compare.KIND, found, compare.table(found), compare.sentences(found)
