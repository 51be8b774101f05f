"""The register tile of a product with a packed matrix: a loop of its own for every height.

So 49 rows are tiles of 13, 12, 12 and 12 instead of 14, 14, 14 and 7. A bias is added and PReLU
applied before the sums leave the registers.

Every sum runs over k in order, in one register: its bits depend neither on the height of the
tile, nor on how the work was cut among threads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import extending

from .simd import CACHE_LINE, emit_prefetch
from .tile import TILE, Emitter, Tile, called_once

_intrinsic: Any = extending.intrinsic

_I64 = ir.IntType(64)

# Bytes ahead of the loop that the matrix is asked for. What follows a panel is the next one, read
# for the first time while few rows wait for it; and hardware does not look beyond a page (4 kB).
AHEAD = 1 << 14


class Panel(Emitter):
    """Writes a loop over k, an epilogue and stores for every number of rows."""

    def __init__(self, builder: Any, tile: Tile) -> None:
        super().__init__(builder, tile)
        self.everything = [ir.Constant(self.mask_type, [1] * tile.lanes)] * tile.vectors

    def emit_heights(self, rows: Any, emit: Callable[[int], None]) -> None:
        """Branch to the part for so many rows; each ends at the same place."""
        bld = self.builder
        end = bld.function.append_basic_block("end")
        choice = bld.switch(rows, end)
        for height in range(1, self.tile.rows + 1):
            part = bld.function.append_basic_block(f"rows_{height}")
            choice.add_case(ir.Constant(_I64, height), part)
            bld.position_at_end(part)
            emit(height)
            bld.branch(end)
        bld.position_at_end(end)

    def row_of_b(self, address: Any, masks: Any) -> list[Any]:
        """Load a row of the panel, and ask for one of those behind it."""
        for line in range(0, 4 * self.tile.columns, CACHE_LINE):
            ahead = ir.Constant(_I64, AHEAD + line)
            emit_prefetch(self.builder, self.builder.add(address, ahead))
        return super().row_of_b(address, masks)

    def emit_sums(
        self, height: int, a: Any, a_row: Any, b: Any, k: Any, begin: Any = None,
        first_a: Any = None,
    ) -> list[Any]:  # fmt: skip
        """Write the loop for one number of rows; go on behind it with its sums."""
        bld = self.builder
        starts = [self.offset(a, bld.mul(ir.Constant(_I64, m), a_row)) for m in range(height)]
        done = bld.function.append_basic_block("done")
        one, width = (ir.Constant(_I64, n) for n in (1, self.tile.columns))
        _, sums = self.emit_loop(starts, one, b, width, k, self.everything, done, begin, first_a)
        bld.position_at_end(done)
        return list(sums)

    def emit_runs(
        self, height: int, a: Any, a_row: Any, runs: Any, run_step: Any, b: Any, k: Any
    ) -> list[Any]:
        """Write a loop over runs of k around that loop."""
        bld = self.builder
        before = bld.block
        run, done = (bld.function.append_basic_block(name) for name in ("run", "runs_done"))
        bld.branch(run)
        bld.position_at_end(run)
        number, first_a, b_at = (bld.phi(_I64) for _ in range(3))
        begin = [[bld.phi(self.vector) for _ in self.everything] for _ in range(height)]
        sums = self.emit_sums(height, a, a_row, b_at, k, begin, first_a)
        following = bld.add(number, ir.Constant(_I64, 1))
        panel = bld.mul(k, ir.Constant(_I64, self.tile.columns))
        for phi, first, then in (
            (number, ir.Constant(_I64, 0), following),
            (first_a, ir.Constant(_I64, 0), bld.add(first_a, run_step)),
            (b_at, b, self.offset(b_at, panel)),
        ):
            phi.add_incoming(first, before)
            phi.add_incoming(then, bld.block)
        for phis, row in zip(begin, sums, strict=True):
            for phi, value in zip(phis, row, strict=True):
                phi.add_incoming(self.zero, before)
                phi.add_incoming(value, bld.block)
        bld.cbranch(bld.icmp_signed("<", following, runs), run, done)
        bld.position_at_end(done)
        return sums

    def emit_panel(
        self, height: int, a: Any, a_row: Any, runs: Any, run_step: Any, b: Any, k: Any, c: Any,
        c_row: Any, columns: Any, bias: Any, slope: Any,
    ) -> None:  # fmt: skip
        """Write the part for one number of rows."""
        bld, tile, everything = self.builder, self.tile, self.everything
        width = ir.Constant(_I64, tile.columns)
        sums = self.emit_runs(height, a, a_row, runs, run_step, b, k)
        sums = self.activated(self.biased(sums, bias, everything), slope, everything)
        masks = [self.mask(columns, v) for v in range(tile.vectors)]
        whole = bld.icmp_signed("==", columns, width)
        with bld.if_else(whole) as (then, otherwise):
            for place, seen in ((then, everything), (otherwise, masks)):
                with place:
                    for m, values in enumerate(sums):
                        self.emit_row(values, c, c_row, m, seen, add=False)


def _emit_panel(builder: Any, arguments: Any) -> None:
    rows, *others = arguments
    panel = Panel(builder, TILE)
    panel.emit_heights(rows, lambda height: panel.emit_panel(height, *others))


def _panel_tile(
    typing_context: Any, rows: Any, a: Any, a_row: Any, runs: Any, run_step: Any, b: Any, k: Any,
    c: Any, c_row: Any, columns: Any, bias: Any, slope: Any,
) -> Any:  # fmt: skip
    """Compute one register tile of prelu(A @ B + bias) from a panel of B.

    Parameters
    ----------
    rows, columns : int
        How much of the tile exists, 1 to `TILE_ROWS` and 1 to `TILE_COLUMNS`.
    a, b, c : int
        Addresses of the tile's first row of A, of the panel, and of C[0, 0] of the tile.
    a_row, c_row : int
        Elements from one row of A, and of C, to the next.
    runs, run_step : int
        Parts that lie apart in a row of A, and elements from one to the next: lines of a window.
    k : int
        Length of each part, at least 1; the panel has runs * k rows.
    bias, slope : int
        Addresses of `TILE_COLUMNS` numbers each. A slope of 1 leaves a column as it is.
    """
    return called_once("minidnn.panel_tile", _emit_panel, 12)


panel_tile: Any = _intrinsic(_panel_tile)
