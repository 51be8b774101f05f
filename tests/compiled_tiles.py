"""Compile a register tile for some CPU without running it, and find the loops that multiply."""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from minidnn.measure.assembly import Loop, loops
from minidnn.measure.inspection import DOTS
from tests.processes import run

ON_X86 = platform.machine().lower() in ("x86_64", "amd64")


def compiled_for(source: str, target: Mapping[str, str], cache: Path) -> tuple[str, str]:
    """Run a program that compiles something; return the first line it prints, and the rest.

    Parameters
    ----------
    source : str
        The program.
    target : mapping
        Environment that tells Numba what to compile for; this CPU may be a lesser one.
    cache : Path
        Folder of machine code that nobody else uses.
    """
    forced = {"MINIDNN_SIMD": ""} if "MINIDNN_SIMD" in os.environ else {}
    environment = {**forced, **target, "MINIDNN_CACHE_DIR": str(cache)}
    chosen, _, assembly = run(sys.executable, "-c", source, env=environment).stdout.partition("\n")
    return chosen, assembly


def inner_loops(assembly: str) -> list[Loop]:
    """Return the innermost loops that multiply vectors."""
    return [loop for loop in loops(assembly) if loop.innermost and products(loop)]


def products(loop: Loop) -> int:
    """Count multiplications of vectors: multiply-adds, else plain ones, or those of bytes."""
    names = [i.name for i in loop.instructions if i.kind in ("fma", "float") and i.lanes > 1]
    floats = sum(re.match(r"v?(fn?m|mul)", name) is not None for name in names)
    return floats + sum(i.name in DOTS for i in loop.instructions)
