"""Comparisons with other libraries: each side a module of `bench`, in a process of its own.

`minidnn.measure.sides` holds the processes and the turns they take. What is believed is the
median over rounds of the ratio of a round (`minidnn.measure.ratios`).
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from minidnn.measure import sides
from minidnn.measure.sides import SideError, take_turns

__all__ = ["ROOT", "Side", "SideError", "take_turns"]

ROOT = Path(__file__).resolve().parent.parent


class Side(sides.Side):
    """One library in its own process, answering one JSON line per JSON line.

    Parameters
    ----------
    name : str
        What tables call it.
    module : str
        What to start, such as ``bench.side_torch``.
    *arguments : str
        For the module's command line.
    threads : int
        How many threads it may use.
    env : mapping, optional
        Added to the environment.
    """

    def __init__(
        self,
        name: str,
        module: str,
        *arguments: str,
        threads: int,
        env: Mapping[str, str] | None = None,
    ) -> None:
        command = [sys.executable, "-m", module, *arguments]
        super().__init__(name, command, cwd=ROOT, threads=threads, env=env)
