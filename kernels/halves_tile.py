"""The register tile of a product by halves (`strassen`): seven products in one loop.

Each product takes up the sums where the one before left them, and what follows it is added,
kept or stored before the next: so C's quarters never wait in memory, and two tiles of
intermediate sums stay in the first-level cache.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from llvmlite import ir
from numba import extending

from .panel_tile import Panel
from .tile import TILE, TILE_COLUMNS, TILE_ROWS, called_once

_intrinsic: Any = extending.intrinsic

_I64 = ir.IntType(64)

PRODUCTS = 7
SUMS = 4  # of A
TILE_SIZE = TILE_ROWS * TILE_COLUMNS
KEPT = 2 * TILE_SIZE  # numbers of memory that a tile's intermediate sums take


class Places(NamedTuple):
    """Arguments of `halves_tile` after the number of rows; addresses, and numbers of float32.

    Attributes
    ----------
    a, a_row, lower : int
        First upper row of A, from one upper row to the next, and from an upper to its lower row.
    sums, sums_row : int
        S1 .. S4 of the first pair, K / 2 numbers each, and from one pair's to the next one's.
    b, k : int
        Panels of the seven factors, one after the other, and their height K / 2.
    kept : int
        Two whole tiles of memory.
    c, c_row, c_lower : int
        First upper row of C11, from one upper row to the next, and to its lower row.
    right : int
        From C11 to C12.
    bias, slope : int
        Of the left half; those of the right half are `right` further on.
    lone : int
        Not 0 if there are no lower rows: P7, P4 and P5 are left out then, C21 and C22 not written.
    """

    a: Any
    a_row: Any
    lower: Any
    sums: Any
    sums_row: Any
    b: Any
    k: Any
    kept: Any
    c: Any
    c_row: Any
    c_lower: Any
    right: Any
    bias: Any
    slope: Any
    lone: Any


class _Halves(Panel):
    """Writes the seven products of a tile as one loop, in which the sums stay in registers.

    What follows the products, in which P1, P6 and P7 run on into what they are added to::

        P1: U = sums                     P4: C21 = sums, sums = 0
        P2: C11 = sums, sums = U         P5: C22 = sums + V, sums += U
        P6: U = sums                     P3: C12 = sums
        P7: V = sums
    """

    def emit_halves(self, height: int, at: Places) -> None:
        """Write the part for one number of rows."""
        bld = self.builder
        before = bld.block
        head, joined, end = (bld.function.append_basic_block(n) for n in ("head", "next", "end"))
        bld.branch(head)
        bld.position_at_end(head)
        turn, b = bld.phi(_I64), bld.phi(_I64)
        begin = [[bld.phi(self.vector) for _ in self.everything] for _ in range(height)]
        a, a_row = self.operand(turn, at)
        sums = self.emit_sums(height, a, a_row, b, at.k, begin)
        ends = self.emit_endings(turn, sums, at, joined)
        bld.position_at_end(joined)
        results = [[bld.phi(self.vector) for _ in self.everything] for _ in range(height)]
        for block, rows in ends:
            for phis, row in zip(results, rows, strict=True):
                for phi, value in zip(phis, row, strict=True):
                    phi.add_incoming(value, block)
        following = self.following(turn, at)
        panel = bld.mul(
            at.k, bld.mul(bld.sub(following, turn), ir.Constant(_I64, self.tile.columns))
        )
        for phi, first, then in (
            (turn, ir.Constant(_I64, 0), following),
            (b, at.b, self.offset(b, panel)),
        ):
            phi.add_incoming(first, before)
            phi.add_incoming(then, joined)
        for phis, row in zip(begin, results, strict=True):
            for phi, value in zip(phis, row, strict=True):
                phi.add_incoming(self.zero, before)
                phi.add_incoming(value, joined)
        bld.cbranch(bld.icmp_signed("<", following, ir.Constant(_I64, PRODUCTS)), head, end)
        bld.position_at_end(end)

    def following(self, turn: Any, at: Places) -> Any:
        """Return the next turn: P3's after P6's for rows whose other products are zero."""
        bld = self.builder
        third = bld.icmp_signed("==", turn, ir.Constant(_I64, 2))
        alone = bld.and_(third, bld.icmp_signed("!=", at.lone, ir.Constant(_I64, 0)))
        last = ir.Constant(_I64, PRODUCTS - 1)
        return bld.select(alone, last, bld.add(turn, ir.Constant(_I64, 1)))

    def operand(self, turn: Any, at: Places) -> tuple[Any, Any]:
        """Return the address of a product's left factor, and numbers from row to row."""
        bld = self.builder
        s1, s2, s3, s4 = (
            self.offset(at.sums, bld.mul(at.k, ir.Constant(_I64, i))) for i in range(SUMS)
        )
        a12 = self.offset(at.a, at.k)
        a22 = self.offset(a12, at.lower)
        chosen = s4
        for i, factor in reversed(list(enumerate((at.a, a12, s2, s3, a22, s1)))):
            here = bld.icmp_signed("==", turn, ir.Constant(_I64, i))
            chosen = bld.select(here, factor, chosen)
        plain = bld.icmp_signed("<=", turn, ir.Constant(_I64, 1))
        plain = bld.or_(plain, bld.icmp_signed("==", turn, ir.Constant(_I64, 4)))
        return chosen, bld.select(plain, at.a_row, at.sums_row)

    def emit_endings(self, turn: Any, sums: Any, at: Places, joined: Any) -> list[Any]:
        """Write what follows each product; return the blocks that end there, and their sums."""
        bld, height = self.builder, len(sums)
        u, v = at.kept, self.offset(at.kept, ir.Constant(_I64, TILE_SIZE))
        zeros = [[self.zero] * self.tile.vectors] * height

        def keep(tile: Any) -> Any:
            width = ir.Constant(_I64, self.tile.columns)
            for m, values in enumerate(sums):
                self.emit_row(values, tile, width, m, self.everything, add=False)
            return sums

        def upper(right: Any, then: Any) -> Any:
            self.emit_quarter(sums, at, self.offset(at.c, right), right)
            return self.kept(u, height) if then else zeros

        def lower(rows: Any, m: int, right: Any) -> None:
            first = self.offset(self.offset(at.c, at.c_lower), right)
            c = self.offset(first, bld.mul(at.c_row, ir.Constant(_I64, m)))
            self.emit_quarter(rows, at, c, right)

        def p4() -> Any:
            lower(sums, 0, nothing)
            return zeros

        def p5() -> Any:
            for m in range(height):
                row = self.offset(v, ir.Constant(_I64, m * self.tile.columns))
                lower(self.added(sums[m : m + 1], self.kept(row, 1)), m, at.right)
                # The compiler stays in this order: with all rows at once registers run out.
                bld.fence("seq_cst", "singlethread")
            return self.added(sums, self.kept(u, height))

        nothing = ir.Constant(_I64, 0)
        after: tuple[Callable[[], Any], ...] = (
            lambda: keep(u), lambda: upper(nothing, True), lambda: keep(u), lambda: keep(v), p4, p5,
            lambda: upper(at.right, False),
        )  # fmt: skip
        blocks = [bld.function.append_basic_block(f"after_{i}") for i in range(PRODUCTS)]
        choice = bld.switch(turn, blocks[-1])
        ends = []
        for i, (block, emit) in enumerate(zip(blocks, after, strict=True)):
            if i < PRODUCTS - 1:
                choice.add_case(ir.Constant(_I64, i), block)
            bld.position_at_end(block)
            rows = emit()
            ends.append((bld.block, rows))
            bld.branch(joined)
        return ends

    def emit_quarter(self, rows: Any, at: Places, c: Any, right: Any) -> None:
        """Store prelu(rows + bias)."""
        rows = self.biased(rows, self.offset(at.bias, right), self.everything)
        rows = self.activated(rows, self.offset(at.slope, right), self.everything)
        for m, values in enumerate(rows):
            self.emit_row(values, c, at.c_row, m, self.everything, add=False)

    def kept(self, tile: Any, height: int) -> list[list[Any]]:
        """Load a tile that was kept."""
        width = self.tile.columns
        return [
            self.load_row(self.offset(tile, ir.Constant(_I64, m * width)), self.everything)
            for m in range(height)
        ]

    def added(self, rows: Any, others: Any) -> list[list[Any]]:
        """Return two tiles' sum."""
        return [
            [self.builder.fadd(x, y) for x, y in zip(row, other, strict=True)]
            for row, other in zip(rows, others, strict=True)
        ]


def _emit_halves(builder: Any, arguments: Any) -> None:
    rows, *places = arguments
    halves = _Halves(builder, TILE)
    halves.emit_heights(rows, lambda height: halves.emit_halves(height, Places(*places)))


def _halves_tile(
    typing_context: Any, rows: Any, a: Any, a_row: Any, lower: Any, sums: Any, sums_row: Any,
    b: Any, k: Any, kept: Any, c: Any, c_row: Any, c_lower: Any, right: Any, bias: Any, slope: Any,
    lone: Any,
) -> Any:  # fmt: skip
    """Compute C's four quarters of 1 to `TILE_ROWS` pairs of rows; see `Places`."""
    return called_once("minidnn.halves_tile", _emit_halves, 16)


halves_tile: Any = _intrinsic(_halves_tile)
