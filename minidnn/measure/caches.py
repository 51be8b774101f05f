"""Caches of the machine, as its system describes them."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

KIB, MIB = 1024, 1024**2


class Cache(NamedTuple):
    """One level: which, the size of each of its caches, and how many of them we may use."""

    level: int
    size: int
    number: int

    def capacity(self, threads: int) -> int:
        """Return the bytes that threads on different cores have together."""
        return self.size * min(threads, self.number)


# Where the system does not tell: small enough to fit on any CPU of the last ten years.
USUAL = ((1, 32 * KIB), (2, 256 * KIB), (3, 4 * MIB))
_LINUX = Path("/sys/devices/system/cpu")


def caches(cpus: Sequence[int], system: Path = _LINUX) -> list[Cache]:
    """Return the data caches of some CPUs, the smallest level first.

    Parameters
    ----------
    cpus : sequence of int
        Those this process may run on.
    system : Path
        Linux's folder of CPUs; elsewhere macOS is asked, then `USUAL` is taken.
    """
    found = _from_linux(cpus, system) or _from_macos(len(cpus))
    return found or [Cache(level, size, 1 if level > 2 else len(cpus)) for level, size in USUAL]


def _from_linux(cpus: Sequence[int], system: Path) -> list[Cache]:
    sizes: dict[int, int] = {}
    shared: dict[int, set[str]] = {}
    for cpu in cpus:
        for index in (system / f"cpu{cpu}" / "cache").glob("index*"):
            try:
                kind, level, size, who = (
                    (index / name).read_text(encoding="ascii").strip()
                    for name in ("type", "level", "size", "shared_cpu_list")
                )
                number = _bytes(size)
            except (OSError, ValueError):  # some virtual machines leave a file out
                continue
            if kind != "Instruction" and number > 0:
                # CPUs of two kinds: what fits the smaller cache fits both.
                sizes[int(level)] = min(number, sizes.get(int(level), number))
                shared.setdefault(int(level), set()).add(who)
    return [Cache(level, sizes[level], len(shared[level])) for level in sorted(sizes)]


def _bytes(text: str) -> int:
    """Read Linux's '1024K' or '32M'."""
    unit = {"K": KIB, "M": MIB}.get(text[-1])
    return int(text[:-1]) * unit if unit else int(text)


def _from_macos(cpus: int) -> list[Cache]:
    if platform.system() != "Darwin":
        return []
    found = []
    for level, name in ((1, "hw.l1dcachesize"), (2, "hw.l2cachesize"), (3, "hw.l3cachesize")):
        done = subprocess.run(
            ["/usr/sbin/sysctl", "-n", name], capture_output=True, text=True, check=False
        )
        if done.stdout.strip().isdigit() and int(done.stdout) > 0:
            found.append(Cache(level, int(done.stdout), cpus if level == 1 else 1))
    return found
