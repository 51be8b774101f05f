"""Refuse before it runs what would not fit the memory or take too long, with the estimate.

>>> check_memory(3 * x_bytes, "ladder depthwise at 9999x9999")
>>> check_time(macs / slow_rate, limit=60, what="rung python")
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path
from typing import Any

from minidnn.errors import InputError

# The rest is for the system and for what an estimate left out.
SHARE = 0.8
_PROC, _CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")


def available_memory(proc: Path = _PROC, cgroups: Path = _CGROUPS) -> int | None:
    """Return how many more bytes this process may use, None where the system does not tell.

    On Linux the least of what the machine has free and what the control groups (a container's
    limit) leave; elsewhere the machine's free memory.
    """
    found = [_machine(proc), *_containers(proc, cgroups)]
    known = [max(0, n) for n in found if n is not None]
    return min(known, default=None)


def _number(path: Path) -> int | None:
    """Read a file that holds one number; None where there is none, or the word "max"."""
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def _machine(proc: Path) -> int | None:
    try:
        lines = (proc / "meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return _windows() if sys.platform == "win32" else _unix()
    kilobytes = [int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    return kilobytes[0] * 1024 if kilobytes else None


def _unix() -> int | None:
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):  # macOS has no such name
        return None


def _windows() -> int | None:
    class Status(ctypes.Structure):
        _fields_ = [
            ("length", ctypes.c_ulong),
            ("load", ctypes.c_ulong),
            *[(name, ctypes.c_ulonglong) for name in ("total", "free", "a", "b", "c", "d", "e")],
        ]

    status = Status(ctypes.sizeof(Status))
    windows: Any = ctypes
    good = windows.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status))
    return int(status.free) if good else None


def _containers(proc: Path, cgroups: Path) -> list[int | None]:
    """Return what each control group of this process, and each above it, leaves."""
    try:
        lines = (proc / "self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    left: list[int | None] = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":  # version 2
            root, limit, used = cgroups, "memory.max", "memory.current"
        elif "memory" in controllers.split(","):
            root = cgroups / "memory"
            limit, used = "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        own = root / path.lstrip("/")
        # In a container the path may be the host's, and what is mounted is its own group.
        for folder in {own, *own.parents, root}:
            if folder == root or root in folder.parents:
                most, now = _number(folder / limit), _number(folder / used)
                left.append(None if most is None or now is None else most - now)
    return left


def check_memory(bytes_needed: int, what: str) -> None:
    """Raise if so many bytes are more than 80 % of the memory that is available.

    Parameters
    ----------
    bytes_needed : int
        The estimate, of all arrays that exist at the same time.
    what : str
        What needs them, for the message.

    Raises
    ------
    InputError
    """
    available = available_memory()
    if available is not None and bytes_needed > SHARE * available:
        raise InputError(
            f"{what}: needs about {size_text(bytes_needed)} of memory, and only "
            f"{size_text(available)} are available; try a smaller shape or batch"
        )


def check_time(seconds: float, limit: float, what: str) -> None:
    """Raise if an estimate of so many seconds exceeds the limit.

    Raises
    ------
    InputError
    """
    if not seconds <= limit:  # NaN is refused as well
        raise InputError(
            f"{what}: would take about {time_text(seconds)}, and the limit is "
            f"{time_text(limit)}; try a smaller shape or batch"
        )


def size_text(n: float) -> str:
    """Return bytes as people read them: ``1.5 GB`` for 1.5e9."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if n < 1000:
            return f"{n:.3g} {unit}"
        n /= 1000
    return f"{n:,.4g} TB"


def time_text(seconds: float) -> str:
    """Return a duration as people read it: ``90 s``, ``12 minutes``, ``3.5 hours``."""
    if not seconds < 86_400:
        return f"{seconds / 86_400:,.3g} days"
    if seconds < 120:
        return f"{seconds:.3g} s"
    if seconds < 7200:
        return f"{seconds / 60:.3g} minutes"
    return f"{seconds / 3600:.3g} hours"
