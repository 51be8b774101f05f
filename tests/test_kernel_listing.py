"""`python -m minidnn.kernels`: the showroom's table of contents."""

from __future__ import annotations

import re
import sys

from minidnn.kernels.ladder import load_all
from tests.processes import run


def test_lists_every_op_with_its_rungs_their_ideas_and_the_one_chosen() -> None:
    printed = run(sys.executable, "-m", "minidnn.kernels").stdout
    listed: dict[str, dict[str, str]] = {}
    chosen: dict[str, str] = {}
    op = ""
    for line in printed.splitlines():
        if re.fullmatch(r"\w+\.\w+", line):
            op = line
            listed[op] = {}
        elif rung := re.fullmatch(r"  ([* ]) (\w+)(.*)", line):
            listed[op][rung[2]] = rung[3].strip()
            if rung[1] == "*":
                chosen[op] = rung[2]
    ladders = load_all()
    assert {op: list(rungs) for op, rungs in listed.items()} == {
        op: list(ladder.rungs) for op, ladder in ladders.items()
    }
    assert chosen == {op: ladder.fastest for op, ladder in ladders.items()}
    untold = [f"{op} {rung}" for op, rungs in listed.items() for rung in rungs if not rungs[rung]]
    assert not untold, "a rung's docstring starts with its idea"
