"""Run Python in a process of its own, as a user would."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def run(
    *command: str | Path,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float = 300,
) -> subprocess.CompletedProcess[str]:
    """Run a command without standard input; fail the test with its output if it fails.

    Parameters
    ----------
    cwd : Path, optional
        Where; the checkout's root if left out.
    env : mapping, optional
        Added to the environment, from which `PYTHONPATH` is taken away.
    """
    done = attempt(*command, cwd=cwd, env=env, timeout=timeout)
    assert done.returncode == 0, (
        f"{' '.join(map(str, command))}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    )
    return done


def attempt(
    *command: str | Path,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float = 300,
) -> subprocess.CompletedProcess[str]:
    """Run a command as `run` does, but leave it to the caller to look at the exit code."""
    inherited = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    return subprocess.run(
        [str(part) for part in command],
        cwd=cwd or ROOT,
        env={**inherited, **(env or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def python(code: str, *, env: Mapping[str, str] | None = None) -> str:
    """Run code in a new interpreter at the checkout's root and return what it printed."""
    return run(sys.executable, "-c", code, env=env).stdout
