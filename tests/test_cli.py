"""The command line's own promises: speed, nearest names, one-line errors, exit codes."""

from __future__ import annotations

import argparse
import errno
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from minidnn import __version__, cli, errors


def _raising(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put one command on the line that raises `error`."""

    def run(args: argparse.Namespace) -> int:
        raise error

    command = SimpleNamespace(
        NAME="boom",
        HELP="raise",
        add_arguments=lambda p: p.add_argument("--level", choices=["low", "high"]),
        run=run,
    )
    monkeypatch.setattr(cli, "COMMANDS", ("boom",))
    monkeypatch.setattr(cli, "_command", lambda name: command)


def test_help_imports_nothing_but_the_standard_library() -> None:
    code = (
        "import sys, minidnn.cli; minidnn.cli.build_parser();"
        "assert not {'numpy', 'numba', 'rich', 'safetensors'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_module_can_be_run() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "minidnn", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["minidnn", __version__]


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["bom"], "did you mean 'boom'?"),
        (["boom", "--levl", "low"], "did you mean '--level'?"),
        (["boom", "--lev", "low"], "did you mean '--level'?"),
        (["boom", "--level", "hihg"], "did you mean 'high'?"),
        (["boom", "more"], "one argument too many: 'more'"),
        ([], "COMMAND"),
    ],
)
def test_a_wrong_name_is_answered_with_the_nearest(
    argv: list[str],
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _raising(AssertionError("must not run"), monkeypatch)
    assert cli.main(argv) == 2
    err = capsys.readouterr().err
    assert expected in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (errors.ConfigError("no such model"), "no such model"),
        (errors.DataError("truncated"), "truncated"),
        (errors.CheckpointError("foreign"), "foreign"),
        (errors.NonFiniteError("loss is nan"), "loss is nan"),
        (errors.MissingExtraError("pip install"), "pip install"),
        (OSError(errno.ENOSPC, "No space left on device", "/x"), "/x; free some space"),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), "Permission denied: /x"),
        (MemoryError("9 GB"), "smaller --batch-size"),
    ],
)
def test_expected_errors_are_one_line_and_exit_code_2(
    error: Exception,
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _raising(error, monkeypatch)
    assert cli.main(["boom"]) == 2
    err = capsys.readouterr().err
    assert expected in err
    assert err.startswith("minidnn boom: error: ")
    assert err.count("\n") == 1


def test_an_error_of_ours_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    _raising(KeyError("a bug"), monkeypatch)
    with pytest.raises(KeyError, match="a bug"):
        cli.main(["boom"])


def test_traceback_is_a_setting_away(monkeypatch: pytest.MonkeyPatch) -> None:
    _raising(errors.DataError("truncated"), monkeypatch)
    monkeypatch.setenv("MINIDNN_TRACEBACK", "1")
    with pytest.raises(errors.DataError):
        cli.main(["boom"])


def test_interrupt_exits_130(monkeypatch: pytest.MonkeyPatch) -> None:
    _raising(KeyboardInterrupt(), monkeypatch)
    assert cli.main(["boom"]) == 130


def test_every_command_keeps_to_the_contract(capsys: Any) -> None:
    for name in cli.COMMANDS:
        assert cli.main([name, "--help"]) == 0
        assert capsys.readouterr().out.startswith(f"usage: minidnn {name}")
