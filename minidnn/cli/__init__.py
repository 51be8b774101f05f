"""The command line: one file per subcommand, each with `NAME`, `HELP`, `add_arguments`, `run`.

Building the parser imports the standard library only, so that ``minidnn --help`` is instant:
a command imports what it works with inside its `run`.
"""

from __future__ import annotations

import argparse
import errno
import importlib
import os
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

from minidnn import __version__
from minidnn.kernels.ladder import unknown

# In the order of `minidnn --help`; each is a module of this package, with _ for -.
COMMANDS = (
    "train",
    "evaluate",
    "compile",
    "quantize",
    "predict",
    "fps",
    "summary",
    "ladder",
    "profile-separable",
    "roofline",
    "profile",
    "inspect",
    "bench",
    "report",
    "data",
    "warmup",
    "doctor",
    "exercise",
)

EPILOG = "Set MINIDNN_TRACEBACK=1 to see where in the code an error came from."
INTERRUPTED = 130  # what shells expect after Ctrl-C: 128 + SIGINT
BAD_INPUT = 2


class _Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line and name the nearest known choice."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # Abbreviations would turn tomorrow's new option into today's script's error.
        super().__init__(*args, **{**kwargs, "allow_abbrev": False})

    def error(self, message: str) -> NoReturn:
        wrong = re.search(r"invalid choice: '(.*?)' \(choose from (.*)\)$", message)
        if wrong:
            known = [choice.strip(" '\"") for choice in wrong[2].split(",")]
            message = message[: wrong.start()] + unknown("choice", wrong[1], known)
        print(f"{self.prog}: error: {message} (see {self.prog} --help)", file=sys.stderr)
        raise SystemExit(BAD_INPUT)

    def option_names(self) -> list[str]:
        """Return every option this parser knows."""
        return [name for action in self._actions for name in action.option_strings]


def _command(name: str) -> Any:
    return importlib.import_module(f"minidnn.cli.{name.replace('-', '_')}")


def build_parser() -> tuple[_Parser, dict[str, _Parser]]:
    """Return the parser of the whole command line, and those of the subcommands by name."""
    parser = _Parser(
        prog="minidnn",
        description="Train, measure and take apart small networks on the CPU.",
        epilog=EPILOG,
    )
    parser.add_argument("--version", action="version", version=f"minidnn {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    parsers = {}
    for module in map(_command, COMMANDS):
        sub = commands.add_parser(module.NAME, help=module.HELP, description=module.HELP)
        module.add_arguments(sub)
        sub.set_defaults(run_command=module.run)  # `run` may name an argument
        parsers[module.NAME] = sub
    return parser, parsers


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser, parsers = build_parser()
    if argv and not argv[0].startswith("-") and argv[0] not in parsers:
        parser.error(unknown("command", argv[0], parsers))
    args, left = parser.parse_known_args(argv)
    if left:
        sub = parsers[args.command]
        name = left[0].partition("=")[0]
        if name.startswith("-"):
            sub.error(unknown("option", name, sub.option_names()))
        sub.error(f"one argument too many: {left[0]!r}")
    return args


def explain(error: BaseException) -> str | None:
    """Return the one line a user needs about an expected error; None for a bug of ours."""
    from minidnn import errors

    expected = (
        errors.InputError,
        errors.CheckpointError,
        errors.GraphError,
        errors.NonFiniteError,
        errors.MissingExtraError,
    )
    if isinstance(error, expected):
        return str(error)
    if isinstance(error, MemoryError):
        return f"out of memory: {error}; try a smaller --batch-size"
    if isinstance(error, OSError) and error.errno is not None:
        where = f": {error.filename}" if error.filename else ""
        hint = "; free some space, then go on" if error.errno == errno.ENOSPC else ""
        return f"{error.strerror}{where}{hint}"
    return None


@contextmanager
def _short_warnings() -> Iterator[None]:
    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        print(f"minidnn: warning: {message}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments without the program's name; ``sys.argv[1:]`` if left out.

    Returns
    -------
    int
        Exit code: 0, 2 for bad input (one line on stderr says what), 130 after an interrupt.
    """
    try:
        args = _parse(sys.argv[1:] if argv is None else argv)
    except SystemExit as end:  # argparse ends --help, --version and errors this way
        return end.code if isinstance(end.code, int) else 0
    try:
        with _short_warnings():
            code: int = args.run_command(args)
            sys.stdout.flush()
            return code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # `minidnn ... | head`: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        line = explain(error)
        if line is None or os.environ.get("MINIDNN_TRACEBACK"):
            raise
        print(f"minidnn {args.command}: error: {line}", file=sys.stderr)
        return BAD_INPUT
