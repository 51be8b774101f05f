"""The register tile of matrix products: a small block of sums that stays in registers.

`dot_tile` is a whole loop, because Numba has no way to name 28 variables by index. One call
computes ``C[rows, columns] (+)= sum over k of A[row, k] * B[k, column]``. On AVX-512 the tile
is 14 rows by 2 vectors of 16 columns: 28 sums, 2 vectors of B and the broadcast of A fill the
32 registers. Each step of k loads 2 vectors and does 28 fused multiply-adds, so arithmetic,
not memory, is the limit.

`dot_tile_then` goes on with the tile before it is stored: bias, activation, and the sums that
batch norm's statistics are made of, which would each be another pass over C.

Tiles at the edge need little code of their own: rows past the end read the last row again and
are not stored, columns past the end are masked off in loads and stores alike. Where few rows
are left, a smaller tile wastes less: 64 rows are 4 tiles of 14 and one of 8.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from llvmlite import ir
from numba import extending
from numba.core import types

from .simd import CACHE_LINE, ISA, WIDTHS, declare, emit_prefetch, fused, spread

_intrinsic: Any = extending.intrinsic
_types: Any = types


class Tile(NamedTuple):
    """Shape of the register tile.

    Attributes
    ----------
    lanes : int
        float32 values in one vector register.
    rows : int
        Rows of A and C.
    vectors : int
        Vectors of B and C side by side.
    few : int
        Rows of a smaller tile, for what is left at the bottom of a matrix.
    """

    lanes: int
    rows: int
    vectors: int
    few: int

    @property
    def columns(self) -> int:
        """Columns of B and C."""
        return self.lanes * self.vectors


# Registers: 32 with AVX-512 and NEON, 16 otherwise; rows * vectors sums, `vectors` of B and
# one broadcast of A must fit.
TILES = {
    "avx512": Tile(WIDTHS["avx512"], 14, 2, few=8),
    "avx2": Tile(WIDTHS["avx2"], 6, 2, few=4),
    "neon": Tile(WIDTHS["neon"], 8, 3, few=4),
    "portable": Tile(WIDTHS["portable"], 6, 2, few=4),
}
TILE = TILES[ISA]
TILE_ROWS, TILE_COLUMNS, FEW_ROWS = TILE.rows, TILE.columns, TILE.few  # for kernels to read

_I64 = ir.IntType(64)
_I32 = ir.IntType(32)
_F32 = ir.FloatType()


class Emitter:
    """Writes one `dot_tile` for one tile shape; a method per line of the pseudo code below.

    ::

        sums[rows][vectors] = 0
        for step in range(k):
            b[v] = masked load of vector v of B's row
            for row in rows:
                sums[row][v] += broadcast(A[row, step]) * b[v]
        for row in rows, if row < valid_rows:
            C[row, v] = sums[row][v] (+ C[row, v] if accumulate), masked
    """

    def __init__(self, builder: Any, tile: Tile) -> None:
        self.builder, self.tile = builder, tile
        self.vector = ir.VectorType(_F32, tile.lanes)
        self.mask_type = ir.VectorType(ir.IntType(1), tile.lanes)
        self.zero = ir.Constant(self.vector, [0.0] * tile.lanes)
        pointer = self.vector.as_pointer()
        suffix = f"v{tile.lanes}f32"
        self.fma = fused(builder.module, self.vector)
        self.masked_load = declare(
            builder.module,
            f"llvm.masked.load.{suffix}.p0",
            self.vector,
            [pointer, _I32, self.mask_type, self.vector],
        )
        self.masked_store = declare(
            builder.module,
            f"llvm.masked.store.{suffix}.p0",
            ir.VoidType(),
            [self.vector, pointer, _I32, self.mask_type],
        )

    def offset(self, address: Any, elements: Any) -> Any:
        """Return an address so many float32 values further on."""
        return self.builder.add(address, self.builder.mul(elements, ir.Constant(_I64, 4)))

    def mask(self, columns: Any, v: int) -> Any:
        """Return which lanes of vector `v` lie before column `columns`."""
        lanes = [v * self.tile.lanes + lane for lane in range(self.tile.lanes)]
        index = ir.Constant(ir.VectorType(_I32, self.tile.lanes), lanes)
        count = spread(self.builder, self.builder.trunc(columns, _I32), index.type)
        return self.builder.icmp_signed("<", index, count)

    def load(self, address: Any, mask: Any) -> Any:
        """Load a vector; lanes that are masked off touch no memory and read zero."""
        pointer = self.builder.inttoptr(address, self.vector.as_pointer())
        return self.builder.call(self.masked_load, [pointer, ir.Constant(_I32, 4), mask, self.zero])

    def store(self, value: Any, address: Any, mask: Any) -> None:
        """Store a vector's lanes that are not masked off."""
        pointer = self.builder.inttoptr(address, self.vector.as_pointer())
        self.builder.call(self.masked_store, [value, pointer, ir.Constant(_I32, 4), mask])

    def scalar(self, address: Any) -> Any:
        """Load one float32 and copy it to every lane."""
        pointer = self.builder.inttoptr(address, _F32.as_pointer())
        return spread(self.builder, self.builder.load(pointer, align=4), self.vector)

    def emit(self, a: Any, a_row: Any, a_step: Any, b: Any, b_step: Any, c: Any, c_row: Any,
             k: Any, rows: Any, columns: Any, accumulate: Any, readable: Any,
             *, epilogue: Any = ()) -> None:  # fmt: skip
        """Write both loops, the epilogue if there is one, and the stores."""
        bld, tile = self.builder, self.tile
        masks = [self.mask(columns, v) for v in range(tile.vectors)]
        entry = bld.block
        some, small, many, whole, edge, done = (
            bld.function.append_basic_block(name)
            for name in ("some", "small", "many", "whole", "edge", "done")
        )
        bld.cbranch(bld.icmp_signed("<=", k, ir.Constant(_I64, 0)), done, some)
        bld.position_at_end(some)
        bld.cbranch(bld.icmp_signed("<=", rows, ir.Constant(_I64, tile.few)), small, many)
        bld.position_at_end(many)
        bld.cbranch(bld.icmp_signed("!=", readable, ir.Constant(_I64, 0)), whole, edge)

        ends = [(entry, [[self.zero] * tile.vectors] * tile.rows)]
        everything = [ir.Constant(self.mask_type, [1] * tile.lanes)] * tile.vectors
        bld.position_at_end(whole)
        starts = [self.offset(a, bld.mul(ir.Constant(_I64, m), a_row)) for m in range(tile.rows)]
        ends.append(self.emit_loop(starts, a_step, b, b_step, k, everything, done))
        for place, height in ((edge, tile.rows), (small, tile.few)):
            bld.position_at_end(place)
            last = bld.sub(rows, ir.Constant(_I64, 1))
            starts = []
            for m in range(height):
                here = ir.Constant(_I64, m)
                clamped = bld.select(bld.icmp_signed("<", here, last), here, last)
                starts.append(self.offset(a, bld.mul(clamped, a_row)))
            block, sums = self.emit_loop(starts, a_step, b, b_step, k, masks, done)
            missing = [[self.zero] * tile.vectors] * (tile.rows - height)
            ends.append((block, [*sums, *missing]))

        bld.position_at_end(done)
        results = [[bld.phi(self.vector) for _ in masks] for _ in range(tile.rows)]
        for block, values in ends:
            for phis, row in zip(results, values, strict=True):
                for phi, value in zip(phis, row, strict=True):
                    phi.add_incoming(value, block)
        if epilogue:
            results = self.emit_epilogue(results, masks, rows, *epilogue)
        self.emit_stores(results, c, c_row, masks, rows, columns, accumulate)

    def emit_loop(
        self, starts: Any, a_step: Any, b: Any, b_step: Any, k: Any, masks: Any, done: Any,
        begin: Any = None, first_a: Any = None,
    ) -> tuple[Any, Any]:  # fmt: skip
        """Write one loop over k; return its last block and the sums it ends with.

        begin: sums to begin with, instead of zeros; first_a: numbers from `starts` to A's first.
        """
        bld = self.builder
        before, loop = bld.block, bld.function.append_basic_block("k_loop")
        bld.branch(loop)
        bld.position_at_end(loop)
        step, a_at, b_at = (bld.phi(_I64) for _ in range(3))
        sums = [[bld.phi(self.vector) for _ in masks] for _ in starts]
        b_vectors = self.row_of_b(b_at, masks)
        new = []
        for start, row in zip(starts, sums, strict=True):
            a_value = self.scalar(self.offset(start, a_at))
            new.append(
                [bld.call(self.fma, [a_value, b, s]) for b, s in zip(b_vectors, row, strict=True)]
            )
        next_step = bld.add(step, ir.Constant(_I64, 1))
        if first_a is None:
            first_a = ir.Constant(_I64, 0)
        for phi, first, following in (
            (step, ir.Constant(_I64, 0), next_step),
            (a_at, first_a, bld.add(a_at, a_step)),
            (b_at, b, self.offset(b_at, b_step)),
        ):
            phi.add_incoming(first, before)
            phi.add_incoming(following, loop)
        if begin is None:
            begin = [[self.zero] * len(masks)] * len(sums)
        for phis, earlier, values in zip(sums, begin, new, strict=True):
            for phi, first, value in zip(phis, earlier, values, strict=True):
                phi.add_incoming(first, before)
                phi.add_incoming(value, loop)
        bld.cbranch(bld.icmp_signed("<", next_step, k), loop, done)
        return loop, new

    def row_of_b(self, address: Any, masks: Any) -> list[Any]:
        """Load what a step of k needs of B."""
        return self.load_row(address, masks)

    def emit_epilogue(
        self, rows: Any, masks: Any, n_rows: Any, bias: Any, slope: Any, moments: Any, first: Any
    ) -> Any:
        """Return the rows with a bias added and activated; store their sums: what is asked for."""
        bld = self.builder
        rows = self.emit_if(bias, rows, lambda rows: self.biased(rows, bias, masks))
        rows = self.emit_if(slope, rows, lambda rows: self.activated(rows, slope, masks))
        with bld.if_then(bld.icmp_signed("!=", moments, ir.Constant(_I64, 0))):
            whole = bld.icmp_signed("==", n_rows, ir.Constant(_I64, self.tile.rows))
            with bld.if_else(whole) as (then, otherwise):
                with then:
                    self.emit_moments(rows, moments, first, None)
                with otherwise:
                    self.emit_moments(rows, moments, first, n_rows)
        return rows

    def biased(self, rows: Any, bias: Any, masks: Any) -> list[Any]:
        """Return the rows with a number per column added, from that address."""
        of = self.load_row(bias, masks)
        return [[self.builder.fadd(x, o) for x, o in zip(row, of, strict=True)] for row in rows]

    def activated(self, rows: Any, slope: Any, masks: Any) -> list[Any]:
        """Return the rows after PReLU with a slope per column, from that address."""
        bld, slopes = self.builder, self.load_row(slope, masks)
        return [
            [
                bld.select(bld.fcmp_unordered("<=", x, self.zero), bld.fmul(x, s), x)
                for x, s in zip(row, slopes, strict=True)
            ]
            for row in rows
        ]

    def emit_if(self, address: Any, rows: Any, change: Any) -> Any:
        """Return the rows, changed if the address is not zero."""
        bld = self.builder
        before = bld.block
        with bld.if_then(bld.icmp_signed("!=", address, ir.Constant(_I64, 0))):
            changed = change(rows)
            inside = bld.block
        results = [[bld.phi(self.vector) for _ in row] for row in rows]
        for phis, new_row, old_row in zip(results, changed, rows, strict=True):
            for phi, new, old in zip(phis, new_row, old_row, strict=True):
                phi.add_incoming(new, inside)
                phi.add_incoming(old, before)
        return results

    def emit_moments(self, rows: Any, moments: Any, first: Any, n_rows: Any) -> None:
        """Store the first row, the sum of all rows' differences from it, and that of squares."""
        bld, everything = self.builder, ir.Constant(self.mask_type, [1] * self.tile.lanes)
        fresh = bld.icmp_signed("!=", first, ir.Constant(_I64, 0))
        for v, row in enumerate(rows[0]):
            places = [
                self.offset(
                    moments, ir.Constant(_I64, place * self.tile.columns + v * self.tile.lanes)
                )
                for place in range(3)
            ]
            origin, total, squares = (
                bld.select(fresh, start, self.load(place, everything))
                for place, start in zip(places, (row, self.zero, self.zero), strict=True)
            )
            for m, row in enumerate(rows):
                difference = bld.fsub(row[v], origin)
                if n_rows is not None:
                    exists = bld.icmp_signed("<", ir.Constant(_I64, m), n_rows)
                    difference = bld.select(exists, difference, self.zero)
                total = bld.fadd(total, difference)
                squares = bld.call(self.fma, [difference, difference, squares])
            for place, value in zip(places, (origin, total, squares), strict=True):
                self.store(value, place, everything)

    def load_row(self, address: Any, masks: Any) -> list[Any]:
        """Load one number per column."""
        return [
            self.load(self.offset(address, ir.Constant(_I64, v * self.tile.lanes)), mask)
            for v, mask in enumerate(masks)
        ]

    def emit_stores(
        self, results: Any, c: Any, c_row: Any, masks: Any, rows: Any, columns: Any, accumulate: Any
    ) -> None:
        """Write the part of the tile that exists; a whole tile needs neither masks nor tests."""
        bld, tile = self.builder, self.tile
        whole = bld.and_(
            bld.icmp_signed("==", rows, ir.Constant(_I64, tile.rows)),
            bld.icmp_signed("==", columns, ir.Constant(_I64, tile.columns)),
        )
        adding = bld.icmp_signed("!=", accumulate, ir.Constant(_I64, 0))
        everything = [ir.Constant(self.mask_type, [1] * tile.lanes)] * tile.vectors
        with bld.if_else(whole) as (then, otherwise):
            with then, bld.if_else(adding) as (add, overwrite):
                with add:
                    for m, values in enumerate(results):
                        self.emit_row(values, c, c_row, m, everything, add=True)
                with overwrite:
                    for m, values in enumerate(results):
                        self.emit_row(values, c, c_row, m, everything, add=False)
            with otherwise:
                for m, values in enumerate(results):
                    exists = bld.icmp_signed("<", ir.Constant(_I64, m), rows)
                    with bld.if_then(exists), bld.if_else(adding) as (add, overwrite):
                        with add:
                            self.emit_row(values, c, c_row, m, masks, add=True)
                        with overwrite:
                            self.emit_row(values, c, c_row, m, masks, add=False)

    def emit_row(self, values: Any, c: Any, c_row: Any, m: int, masks: Any, *, add: bool) -> None:
        """Write row `m` of the tile, or add it to what is there."""
        start = self.offset(c, self.builder.mul(ir.Constant(_I64, m), c_row))
        for v, (value, mask) in enumerate(zip(values, masks, strict=True)):
            address = self.offset(start, ir.Constant(_I64, v * self.tile.lanes))
            if add:
                value = self.builder.fadd(value, self.load(address, mask))
            self.store(value, address, mask)


def called_once(name: str, emit: Callable[[Any, Any], None], count: int) -> tuple[Any, Any]:
    """Return the signature and code of an intrinsic: a call of a function of int64 arguments.

    The function is written once per module and never inlined: copies of so much code in every
    loop around it would cost seconds of compiling.
    """

    def codegen(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        function = builder.module.globals.get(name)
        if function is None:
            kind = ir.FunctionType(ir.VoidType(), [_I64] * count)
            function = ir.Function(builder.module, kind, name)
            function.linkage = "linkonce_odr"
            function.attributes.add("noinline")
            inside = ir.IRBuilder(function.append_basic_block())
            emit(inside, function.args)
            inside.ret_void()
        builder.call(function, arguments)
        return context.get_dummy_value()

    return _types.void(*[_types.int64] * count), codegen


def _emit_tile(builder: Any, arguments: Any) -> None:
    Emitter(builder, TILE).emit(*arguments)


def _emit_tile_then(builder: Any, arguments: Any) -> None:
    *tile, readable, bias, slope, moments, first = arguments
    plain = [*tile, ir.Constant(_I64, 0), readable]
    Emitter(builder, TILE).emit(*plain, epilogue=(bias, slope, moments, first))


def _dot_tile(
    typing_context: Any, a: Any, a_row: Any, a_step: Any, b: Any, b_step: Any, c: Any, c_row: Any,
    k: Any, rows: Any, columns: Any, accumulate: Any, readable: Any,
) -> Any:  # fmt: skip
    """Compute one register tile of a float32 matrix product; call it from kernels only.

    Parameters
    ----------
    a, b, c : int
        Addresses of A[0, 0], B[0, 0] and C[0, 0] of this tile.
    a_row, a_step : int
        Elements from one row of A to the next, and from one k to the next: (K, 1) reads a
        matrix as it lies, (1, M) reads it transposed.
    b_step, c_row : int
        Elements from one row of B, and of C, to the next; columns are contiguous.
    k : int
        Length of the dot products; with 0 the result is zero.
    rows, columns : int
        How much of the tile exists, 1 to `TILE_ROWS` and 1 to `TILE_COLUMNS`.
    accumulate : int
        0 to overwrite C, 1 to add to it.
    readable : int
        1 if a whole tile of A and B may be read, though not all of it may exist: the faster
        loop. 0 where that would leave the arrays.
    """
    return called_once("minidnn.dot_tile", _emit_tile, 12)


def _dot_tile_then(
    typing_context: Any, a: Any, a_row: Any, a_step: Any, b: Any, b_step: Any, c: Any, c_row: Any,
    k: Any, rows: Any, columns: Any, readable: Any, bias: Any, slope: Any, moments: Any,
    first: Any,
) -> Any:  # fmt: skip
    """Compute a tile as `dot_tile` does, and work on it before it leaves the registers.

    All that follows the loop over k is chosen at run time and costs nothing where it is not
    asked for: pass 0 for an address to leave it out.

    Parameters
    ----------
    bias : int
        Address of one number per column of the tile, to be added.
    slope : int
        Address of one number per column: what is not positive is multiplied by it (PReLU).
    moments : int
        Address of (3, TILE_COLUMNS) numbers about the rows seen: the first of them, the sum of
        all differences from it, and the sum of their squares. Differences, because the square
        of a large mean would drown the variance.
    first : int
        1 to begin with this tile's rows, 0 to add them to what the moments hold.
    """
    return called_once("minidnn.dot_tile_then", _emit_tile_then, 15)


def _prefetch_tile(typing_context: Any, c: Any, c_row: Any) -> Any:
    """Ask for the cache lines of a whole tile of C at an address; it need not exist."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        c, c_row = arguments
        for m in range(TILE_ROWS):
            for line in range(0, 4 * TILE_COLUMNS, CACHE_LINE):
                row = builder.mul(c_row, ir.Constant(_I64, 4 * m))
                emit_prefetch(builder, builder.add(builder.add(c, row), ir.Constant(_I64, line)))
        return context.get_dummy_value()

    return _types.void(_types.int64, _types.int64), codegen


def _tile_height(typing_context: Any, left: Any) -> Any:
    """Return how many rows to take when so many are left: 16 are two tiles of 8, not 14 and 2."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        (left,) = arguments
        rows, few, twice = (ir.Constant(_I64, n) for n in (TILE.rows, TILE.few, 2 * TILE.few))
        above = builder.icmp_signed(">", left, rows)
        split = builder.and_(above, builder.icmp_signed("<=", left, twice))
        return builder.select(split, few, builder.select(above, rows, left))

    return _types.int64(_types.int64), codegen


dot_tile: Any = _intrinsic(_dot_tile)
prefetch_tile: Any = _intrinsic(_prefetch_tile)
tile_height: Any = _intrinsic(_tile_height)
dot_tile_then: Any = _intrinsic(_dot_tile_then)
