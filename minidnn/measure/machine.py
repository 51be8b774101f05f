"""What a number is worth nothing without: CPU, affinity, threads, versions, date."""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any


def affinity() -> list[int] | None:
    """Return the CPUs this process may run on, where the system tells."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None


def default_threads() -> int:
    """Return the number of CPUs this process may use."""
    return len(affinity() or ()) or os.cpu_count() or 1


def peak_memory() -> float:
    """Return the most memory this process ever had resident, in MiB."""
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    if sys.platform == "win32":
        return float("nan")
    import resource  # not on Windows

    # In a child Linux counts from the parent's peak on, so this is for systems without /proc.
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kilobytes / (1024**2 if sys.platform == "darwin" else 1024)


def cpu_name() -> str:
    """Return the CPU's name as the system gives it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def surroundings(threads: int, packages: Sequence[str]) -> dict[str, Any]:
    """Return what the sides of a comparison have in common, as JSON holds it."""
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "cpu": cpu_name(),
        "affinity": affinity(),
        "threads": threads,
        "python": platform.python_version(),
        "versions": {name: version(name) for name in packages},
    }


def describe(found: Mapping[str, Any]) -> str:
    """Return `surroundings` in one line."""
    versions = ", ".join(f"{name} {number}" for name, number in found["versions"].items())
    return (
        f"{found['date']}; {found['cpu']}, CPUs {found['affinity']}, {found['threads']} threads; "
        f"Python {found['python']}, {versions}"
    )


def check_equal(threads: int, sides: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise unless all sides run on the same CPUs with the same number of threads."""
    wanted = {"threads": threads, "affinity": affinity()}
    for name, side in sides.items():
        for what, value in wanted.items():
            if side[what] != value:
                raise SystemExit(f"{name}: {what}: expected {value} as all sides, got {side[what]}")


def count(parser: argparse.ArgumentParser, args: argparse.Namespace, *names: str) -> None:
    """Refuse a command line whose numbers of that name are below 1."""
    for name in names:
        if getattr(args, name) < 1:
            parser.error(f"--{name}: expected at least 1")


def check_installed(package: str, extra: str) -> None:
    """Raise with a hint if a package that a comparison needs is missing."""
    if importlib.util.find_spec(package) is None:
        raise SystemExit(
            f"this comparison needs {package}, which is not installed; "
            f"try: python -m pip install '.[{extra}]'"
        )
