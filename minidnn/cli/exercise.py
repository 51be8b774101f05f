"""``minidnn exercise``: write a kernel yourself, and have it graded."""

from __future__ import annotations

import argparse
import sys

NAME = "exercise"
HELP = "write a kernel yourself: a stub to fill in, and a grader"
NOT_PASSED = 1


def _seconds(text: str) -> float:
    return _above(text, float, 0, "a number of seconds above 0")


def _factor(text: str) -> float:
    return _above(text, float, 0, "a factor above 0")


def _megabytes(text: str) -> int:
    return int(_above(text, int, 63, "at least 64 megabytes"))


def _above(text: str, kind: type[int] | type[float], least: int, what: str) -> float:
    try:
        value = kind(text)
    except ValueError:
        value = 0
    if not least < value < 1e9:
        raise argparse.ArgumentTypeError(f"expected {what}, got {text!r}")
    return value


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare ``list``, ``new`` and ``grade``."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    shown = actions.add_parser("list", help="the exercises, and what they are timed against")
    shown.add_argument("--json", action="store_true", help="for programs")
    new = actions.add_parser("new", help="write a file to fill in")
    new.add_argument("exercise", metavar="NAME", help="see minidnn exercise list")
    new.add_argument("-o", "--out", metavar="FILE", help="default: NAME.py")
    grade = actions.add_parser("grade", help="is it correct, and how fast?")
    grade.add_argument("file", metavar="FILE", help="a stub that was filled in")
    grade.add_argument("--against", metavar="RUNG", help="to be timed against (default: naive)")
    grade.add_argument(
        "--factor",
        type=_factor,
        default=1.0,
        metavar="F",
        help="pass at F times the rung's speed (default: 1)",
    )
    grade.add_argument(
        "--timeout",
        type=_seconds,
        default=60.0,
        metavar="S",
        help="seconds for the tests, and again for the timing (default: 60)",
    )
    grade.add_argument(
        "--memory",
        type=_megabytes,
        default=2048,
        metavar="MB",
        help="megabytes it may take, on Linux (default: 2048)",
    )
    grade.add_argument("--json", action="store_true", help="for autograders")


def run(args: argparse.Namespace) -> int:
    """Run one action; 1 for work that is not passed, 2 for a file that gives no answer."""
    return {"list": _list, "new": _new, "grade": _grade}[args.action](args)


def _list(args: argparse.Namespace) -> int:
    from minidnn.measure.exercises.catalogue import EXERCISES
    from minidnn.measure.tables import Table, show

    if args.json:
        rows = [
            {"name": e.name, "signature": e.signature, "rungs": list(e.rungs().rungs)}
            for e in EXERCISES.values()
        ]
        _print_json("exercise list", {"exercises": rows})
        return 0
    lines = [[e.name, e.signature, ", ".join(e.rungs().rungs)] for e in EXERCISES.values()]
    show([Table("exercises", ["", "arguments", "rungs to be timed against"], lines)])
    return 0


def _new(args: argparse.Namespace) -> int:
    from pathlib import Path

    from minidnn.measure.exercises import stub
    from minidnn.measure.exercises.catalogue import find

    path = Path(args.out or f"{args.exercise}.py")
    stub.write(find(args.exercise), path)
    print(f"{path}: fill in the function, then: minidnn exercise grade {path}")
    return 0


def _grade(args: argparse.Namespace) -> int:
    from pathlib import Path

    from minidnn.measure.exercises import grader
    from minidnn.measure.exercises.runner import Limits

    path = Path(args.file)
    limits = Limits(args.timeout, args.memory)
    found = grader.grade(path, against=args.against, factor=args.factor, limits=limits)
    if args.json:
        _print_json("exercise", {"file": str(path), **found.as_dict()})
    if found.verdict in grader.NO_ANSWER:
        print(f"minidnn exercise: error: {path}: {found.verdict}: {found.message}", file=sys.stderr)
        return 2
    if not args.json:
        print("\n".join(_lines(found, path)))
    return 0 if found.verdict == grader.PASSED else NOT_PASSED


def _print_json(kind: str, found: dict[str, object]) -> None:
    import json

    from minidnn.measure.results import envelope

    print(json.dumps(envelope(kind, found), indent=2))


def _lines(found: object, path: object) -> list[str]:
    """Return a grade as text: one line per part, then what failed, then the verdict."""
    from minidnn.measure.exercises.grader import Grade

    assert isinstance(found, Grade)
    rules, tests, speed = (found.parts[name] for name in ("rules", "correctness", "speed"))
    broken, ran = rules.found["broken"], tests.found["tests"]
    lines = [f"{found.exercise} ({path})", f"rules        {'broken' if broken else 'kept'}"]
    lines += [f"  - {text}" for text in broken]
    if ran:
        passed = sum(test["passed"] for test in ran)
        lines.append(f"correctness  {passed} of {len(ran)} tests passed")
        lines += [f"  - {t['name']}: {t['message']}" for t in ran if not t["passed"]]
    if "ratio" in speed.found:
        lines.append(
            "speed        {ratio:.2f} times {against} ({low:.2f} to {high:.2f}); "
            "{seconds:.3g} s against {rung_seconds:.3g} s, {shape}".format(**speed.found)
        )
    return [*lines, f"verdict      {found.verdict}: {found.message}"]
