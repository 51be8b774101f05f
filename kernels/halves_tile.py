"""The register tile of a product by halves (`strassen`): seven products in a row.

Each product takes up the sums where the one before left them, and what follows it is added,
kept or stored before the next: so C's quarters never wait in memory, and two tiles of
intermediate sums stay in the first-level cache.
"""

from __future__ import annotations

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
    """Writes the seven products of a tile one after the other; the sums stay in registers.

    P1, P6 and P7 run on into what they are added to::

        P1: U = sums                 P7: V = sums
        P2: C11 = sums               P4: C21 = sums, sums = 0
        P6: sums += U, U = sums      P5: C22 = sums + V, sums += U
                                     P3: C12 = sums
    """

    def emit_halves(self, height: int, at: Places) -> None:
        """Write the part for one number of rows."""
        bld = self.builder
        s2, s4 = self.sum_of_a(1, at), self.sum_of_a(3, at)
        a12 = self.offset(at.a, at.k)
        sums = self.product(0, at.a, at.a_row, self.zeros(height), at)
        self.keep(sums, at.kept)
        sums = self.product(1, a12, at.a_row, sums, at)
        self.emit_quarter(sums, at, at.c, ir.Constant(_I64, 0))
        sums = self.product(2, s2, at.sums_row, self.kept(at.kept, height), at)
        paired = bld.zext(bld.icmp_signed("==", at.lone, ir.Constant(_I64, 0)), _I64)
        sums = self.emit_if(paired, sums, lambda sums: self.emit_lower(sums, at))
        sums = self.product(6, s4, at.sums_row, sums, at)
        self.emit_quarter(sums, at, self.offset(at.c, at.right), at.right)

    def emit_lower(self, sums: Any, at: Places) -> list[list[Any]]:
        """Write P7, P4 and P5, and C's lower quarters; return U + P5, given U."""
        bld, height = self.builder, len(sums)
        s1, s3 = self.sum_of_a(0, at), self.sum_of_a(2, at)
        a22 = self.offset(self.offset(at.a, at.k), at.lower)
        u, v = at.kept, self.offset(at.kept, ir.Constant(_I64, TILE_SIZE))
        c21 = self.offset(at.c, at.c_lower)
        c22 = self.offset(c21, at.right)
        self.keep(sums, u)
        sums = self.product(3, s3, at.sums_row, sums, at)
        self.keep(sums, v)
        sums = self.product(4, a22, at.a_row, sums, at)
        self.emit_quarter(sums, at, c21, ir.Constant(_I64, 0))
        sums = self.product(5, s1, at.sums_row, self.zeros(height), at)
        for m in range(height):
            row = self.kept(self.offset(v, ir.Constant(_I64, m * self.tile.columns)), 1)
            c = self.offset(c22, bld.mul(at.c_row, ir.Constant(_I64, m)))
            self.emit_quarter(self.added(sums[m : m + 1], row), at, c, at.right)
            # The compiler stays in this order: with all rows at once registers run out.
            bld.fence("seq_cst", "singlethread")
        return self.added(sums, self.kept(u, height))

    def sum_of_a(self, i: int, at: Places) -> Any:
        """Return the address of S1 .. S4."""
        return self.offset(at.sums, self.builder.mul(at.k, ir.Constant(_I64, i)))

    def product(self, i: int, a: Any, a_row: Any, sums: Any, at: Places) -> list[list[Any]]:
        """Write a product with the factor i of B, added to sums."""
        numbers = self.builder.mul(at.k, ir.Constant(_I64, i * self.tile.columns))
        return self.emit_sums(len(sums), a, a_row, self.offset(at.b, numbers), at.k, sums)

    def zeros(self, height: int) -> list[list[Any]]:
        """Return sums to begin with."""
        return [[self.zero] * self.tile.vectors] * height

    def emit_quarter(self, rows: Any, at: Places, c: Any, right: Any) -> None:
        """Store prelu(rows + bias)."""
        rows = self.biased(rows, self.offset(at.bias, right), self.everything)
        rows = self.activated(rows, self.offset(at.slope, right), self.everything)
        for m, values in enumerate(rows):
            self.emit_row(values, c, at.c_row, m, self.everything, add=False)

    def keep(self, rows: Any, tile: Any) -> None:
        """Store a tile, to be taken up later."""
        width = ir.Constant(_I64, self.tile.columns)
        for m, values in enumerate(rows):
            self.emit_row(values, tile, width, m, self.everything, add=False)

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
