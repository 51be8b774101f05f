"""The same tables for a terminal and for a page."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import rich.table
from rich.console import Console

WIDTH = 160  # so that no cell is cut, whatever the terminal


class Table(NamedTuple):
    """A title, the names of columns, and rows of text; short rows are filled up.

    Columns hold numbers, at the right, but for the first and those named in `prose`.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    prose: Sequence[str] = ()

    def _is_left(self, number: int) -> bool:
        return number == 0 or self.columns[number] in self.prose

    def filled(self) -> list[list[str]]:
        """Return rows that all have as many cells as there are columns."""
        return [[*row, *[""] * (len(self.columns) - len(row))] for row in self.rows]

    def rich(self) -> rich.table.Table:
        """Return it for a terminal."""
        table = rich.table.Table(title=self.title, title_justify="left")
        for number, column in enumerate(self.columns):
            table.add_column(column, justify="left" if self._is_left(number) else "right")
        for row in self.filled():
            table.add_row(*row)
        return table

    def markdown(self) -> str:
        """Return it for a page."""
        rules = ["---" if self._is_left(i) else "---:" for i in range(len(self.columns))]
        lines = [f"| {' | '.join(row)} |" for row in (self.columns, rules, *self.filled())]
        return "\n".join([f"**{self.title}**", "", *lines])


def verdict_table(verdicts: Iterable[Mapping[str, Any]]) -> Table:
    """Return what was asked for, what was measured, and whether it is enough."""
    rows = [[v["what"], v["asked"], v["got"], "yes" if v["met"] else "NO"] for v in verdicts]
    return Table("asked for", ["", "asked", "measured", "met"], rows)


def texts(tables: Iterable[Table], *texts: str) -> list[str]:
    """Return tables as wide as needed, then texts."""
    console = Console(width=WIDTH, file=io.StringIO())
    rendered = []
    for table in tables:
        with console.capture() as captured:
            console.print(table.rich())
        rendered.append("\n".join(line.rstrip() for line in captured.get().splitlines()))
    return [*rendered, *texts]


def show(tables: Iterable[Table], *more: str) -> None:
    """Print tables, then texts."""
    print("\n\n".join(texts(tables, *more)))
