"""What ``pytest bench --full --benchmark-json`` found, as tables: one per ladder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from minidnn.kernels.ladder import load_all
from minidnn.measure.tables import Table

COMPUTED, MOVED = "GFLOP/s", "GB/s"


def measured(benchmarks: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return what the page needs of pytest-benchmark's records of rungs; others are left out."""
    return [
        {
            "ladder": one["extra_info"]["ladder"],
            "rung": one["extra_info"]["rung"],
            "at": one["extra_info"]["at"],
            "seconds": one["stats"]["median"],
            **{name: one["extra_info"].get(name) for name in (COMPUTED, MOVED)},
        }
        for one in benchmarks
        if "rung" in one.get("extra_info", {})
    ]


def tables(kernels: Iterable[Mapping[str, Any]]) -> list[Table]:
    """Return a table per ladder: a row per shape and batch, a column per rung."""
    by_ladder: dict[str, list[Mapping[str, Any]]] = {}
    for one in kernels:
        by_ladder.setdefault(one["ladder"], []).append(one)
    return [_table(ladder, by_ladder[ladder]) for ladder in load_all() if ladder in by_ladder]


def _table(ladder: str, found: list[Mapping[str, Any]]) -> Table:
    rungs = [r for r in load_all()[ladder].rungs if any(one["rung"] == r for one in found)]
    unit = COMPUTED if any(one[COMPUTED] for one in found) else MOVED
    cells = {(one["at"], one["rung"]): _cell(one, unit) for one in found}
    places = list(dict.fromkeys(one["at"] for one in found))
    rows = [[at, *(cells.get((at, rung), "") for rung in rungs)] for at in places]
    return Table(f"{ladder}: ms ({unit})", ["shape and batch", *rungs], rows)


def _cell(one: Mapping[str, Any], unit: str) -> str:
    return f"{1e3 * one['seconds']:.3g} ({one[unit]:.3g})"
