"""The register tile of 8-bit matrix products: a block of 32-bit sums that stays in registers.

`strip_vnni` and `strip_avx2` compute all rows of one panel of 32 columns, tile after tile::

    for each tile of rows:
        sums[row][column] = bias[column]
        for each group of four numbers k .. k + 3 of a row of A:
            sums[row][:] += A[row, k .. k + 3] . B[k .. k + 3, :]     (Vectors.dot4)
        y = float32(sums) * scale[column]
        y = y if y > 0 else y * slope[column]
        C[row, column] = y, or clip(rint(y) + zero, 0, 255)

A is read where it lies, four bytes of a row at a time, copied to all lanes of a register. B comes
packed (`pack`): so that 4 x 32 weights lie side by side. With VNNI a tile is 14 rows by 2 vectors
of 16 columns; with AVX2, which has half the registers of half the width, 4 rows by 2 vectors of 8,
twice per panel. Fewer rows have tiles of their own.

The last group of a row that is no multiple of four long are its last four numbers: some were
in the group before, and have zeros for weights here. So nothing past the row is read.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import extending
from numba.core import types

from ..simd import declare
from .packing import GROUP, PANEL
from .vectors import I32, I64, Avx2, Vectors, Vnni

_intrinsic: Any = extending.intrinsic
_types: Any = types


def _constant(value: int) -> Any:
    return ir.Constant(I64, value)


class _Tile:
    """Writes the function of one tile: so many rows, two vectors of columns."""

    def __init__(self, vectors: Vectors, height: int, arguments: Any) -> None:
        (
            self.a, self.a_row, self.panel, self.y, self.y_row, self.k, self.columns, self.bias,
            self.scale, self.slope, self.zero, self.as_float,
        ) = arguments  # fmt: skip
        self.vectors, self.builder, self.height = vectors, vectors.builder, height
        self.mask_type = ir.VectorType(ir.IntType(1), vectors.lanes)
        self.masks = [self._mask(v) for v in range(2)]

    def _mask(self, v: int) -> Any:
        """Return which lanes of vector v lie before column `columns`."""
        bld, lanes = self.builder, self.vectors.lanes
        index = ir.Constant(self.vectors.ints, [v * lanes + lane for lane in range(lanes)])
        count = bld.trunc(self.columns, I32)
        one = bld.insert_element(ir.Constant(index.type, ir.Undefined), count, ir.Constant(I32, 0))
        every = bld.shuffle_vector(one, one, ir.Constant(index.type, [0] * lanes))
        return bld.icmp_signed("<", index, every)

    def per_column(self, address: Any, kind: Any) -> list[Any]:
        """Load 32-bit numbers, one per column; zeros where there is none."""
        suffix = "i32" if kind.element == I32 else "f32"
        name = f"llvm.masked.load.v{kind.count}{suffix}.p0"
        arguments = [kind.as_pointer(), I32, self.mask_type, kind]
        function = declare(self.builder.module, name, kind, arguments)
        zero = ir.Constant(kind, None)
        return [
            self.builder.call(
                function,
                [
                    self.vectors.pointer(
                        self.vectors.offset(address, v * self.vectors.width), kind
                    ),
                    ir.Constant(I32, 4),
                    mask,
                    zero,
                ],
            )
            for v, mask in enumerate(self.masks)
        ]

    def emit(self) -> None:
        """Write it all."""
        sums = self.emit_sums()
        scales = self.per_column(self.scale, self.vectors.floats)
        slopes = self.per_column(self.slope, self.vectors.floats)
        floats = [
            [self.vectors.scaled(s, m, p) for s, m, p in zip(row, scales, slopes, strict=True)]
            for row in sums
        ]
        asked = self.builder.icmp_signed("!=", self.as_float, _constant(0))
        with self.builder.if_else(asked) as (then, otherwise):
            with then:
                self.emit_stores(floats, 4)
            with otherwise:
                self.emit_stores(self.codes(floats), 1)

    def emit_sums(self) -> list[list[Any]]:
        """Write the loop over the groups of a row; return the sums of every row."""
        bld, vectors = self.builder, self.vectors
        start = self.per_column(self.bias, vectors.ints)
        rows = [bld.mul(self.a_row, _constant(m)) for m in range(self.height)]
        row_starts = [bld.add(self.a, row) for row in rows]
        last = bld.sub(self.k, _constant(GROUP))
        end = bld.add(self.panel, bld.mul(self.k, _constant(PANEL)))
        before, loop, done = bld.block, *(bld.append_basic_block(n) for n in ("loop", "done"))
        bld.branch(loop)
        bld.position_at_end(loop)
        a_at, b_at = bld.phi(I64), bld.phi(I64)
        sums = [[bld.phi(vectors.ints) for _ in start] for _ in row_starts]
        weights = [
            vectors.weights(vectors.load(vectors.offset(b_at, v * vectors.width), vectors.bytes))
            for v in range(2)
        ]
        new = []
        for row, row_start in zip(sums, row_starts, strict=True):
            four = vectors.activations(vectors.four_bytes(bld.add(row_start, a_at)))
            new.append([vectors.dot4(s, four, w) for s, w in zip(row, weights, strict=True)])
        following = bld.add(a_at, _constant(GROUP))
        following = bld.select(bld.icmp_signed("<", following, last), following, last)
        next_b = bld.add(b_at, _constant(GROUP * PANEL))
        for phi, first, value in ((a_at, _constant(0), following), (b_at, self.panel, next_b)):
            phi.add_incoming(first, before)
            phi.add_incoming(value, loop)
        for phis, values in zip(sums, new, strict=True):
            for phi, first, value in zip(phis, start, values, strict=True):
                phi.add_incoming(first, before)
                phi.add_incoming(value, loop)
        bld.cbranch(bld.icmp_signed("<", next_b, end), loop, done)
        bld.position_at_end(done)
        return new

    def codes(self, floats: list[list[Any]]) -> list[list[Any]]:
        """Return the rows as bytes, one vector for each; two rows are packed at a time."""
        vectors, bld = self.vectors, self.builder
        zero = vectors.splat_short(self.zero)
        half = vectors.width // 2
        rows = []
        for m in range(0, self.height, 2):
            pair = floats[m] + floats[min(m + 1, self.height - 1)]
            packed = vectors.in_order(vectors.codes(pair, zero))
            for row in range(min(2, self.height - m)):
                places = list(range(row * half, (row + 1) * half))
                mask = ir.Constant(ir.VectorType(I32, half), places)
                rows.append([bld.shuffle_vector(packed, packed, mask)])
        return rows

    def emit_stores(self, rows: list[list[Any]], size: int) -> None:
        """Write the rows of numbers of `size` bytes; incomplete ones go by way of the stack."""
        bld, vectors = self.builder, self.vectors
        width = 2 * vectors.lanes * size
        whole = bld.icmp_signed(">=", self.columns, _constant(2 * vectors.lanes))
        with bld.goto_entry_block():
            room = bld.alloca(ir.ArrayType(ir.IntType(8), width * self.height))
        room_at = bld.ptrtoint(room, I64)
        to = bld.select(whole, self.y, room_at)
        to_row = bld.select(whole, self.y_row, _constant(width))
        for m, row in enumerate(rows):
            at = bld.add(to, bld.mul(to_row, _constant(m)))
            for v, vector in enumerate(row):
                vectors.store(vector, vectors.offset(at, v * vectors.width))
        with bld.if_then(bld.not_(whole)):
            count = bld.mul(self.columns, _constant(size))
            for m in range(self.height):
                target = bld.add(self.y, bld.mul(self.y_row, _constant(m)))
                self.emit_copy(bld.add(room_at, _constant(m * width)), target, count)

    def emit_copy(self, source: Any, target: Any, count: Any) -> None:
        """Copy so many bytes from one address to another."""
        byte, bit = ir.IntType(8).as_pointer(), ir.IntType(1)
        memcpy = declare(
            self.builder.module, "llvm.memcpy.p0.p0.i64", ir.VoidType(), [byte, byte, I64, bit]
        )
        places = [self.builder.inttoptr(address, byte) for address in (target, source)]
        self.builder.call(memcpy, [*places, count, ir.Constant(bit, 0)])


def _function(module: Any, name: str, count: int) -> tuple[Any, Any]:
    """Return a new function of int64 arguments, never inlined, and its builder."""
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [I64] * count), name)
    function.linkage = "linkonce_odr"
    function.attributes.add("noinline")
    return function, ir.IRBuilder(function.append_basic_block())


def _tile(module: Any, kind: type[Vectors], height: int) -> Any:
    function, builder = _function(module, f"minidnn.int8_tile_{kind.name}_{height}", 12)
    _Tile(kind(builder), height, function.args).emit()
    builder.ret_void()
    return function


def _strip(module: Any, kind: type[Vectors]) -> Any:
    """Write the loops over the tiles of a panel: the tallest while it fits, then the next."""
    name = f"minidnn.int8_strip_{kind.name}"
    if name in module.globals:
        return module.globals[name]
    tiles = {height: _tile(module, kind, height) for height in kind.heights}
    function, bld = _function(module, name, 13)
    a, a_row, panel, y, y_row, k, rows, columns, *per_column, zero, as_float = function.args
    size = bld.select(bld.icmp_signed("!=", as_float, _constant(0)), _constant(4), _constant(1))
    start = _constant(0)
    for height in kind.heights:
        before = bld.block
        test, body, after = (bld.append_basic_block(n) for n in ("test", "body", "after"))
        bld.branch(test)
        bld.position_at_end(test)
        i = bld.phi(I64)
        i.add_incoming(start, before)
        following = bld.add(i, _constant(height))
        bld.cbranch(bld.icmp_signed("<=", following, rows), body, after)
        bld.position_at_end(body)
        a_at, y_at = (bld.add(base, bld.mul(i, row)) for base, row in ((a, a_row), (y, y_row)))
        for first in range(0, PANEL, 2 * kind.lanes):
            with bld.if_then(bld.icmp_signed("<", _constant(first), columns)):
                bld.call(
                    tiles[height],
                    [
                        a_at, a_row, bld.add(panel, _constant(GROUP * first)),
                        bld.add(y_at, bld.mul(size, _constant(first))), y_row,
                        k, bld.sub(columns, _constant(first)),
                        *(bld.add(address, _constant(4 * first)) for address in per_column),
                        zero, as_float,
                    ],
                )  # fmt: skip
        i.add_incoming(following, bld.block)
        bld.branch(test)
        bld.position_at_end(after)
        start = i
    bld.ret_void()
    return function


def _strip_of(kind: type[Vectors]) -> Any:
    def strip(
        typing_context: Any, a: Any, a_row: Any, panel: Any, y: Any, y_row: Any, k: Any, rows: Any,
        columns: Any, bias: Any, scale: Any, slope: Any, zero: Any, as_float: Any,
    ) -> Any:  # fmt: skip
        """Compute all rows of one panel of C; call it from exact kernels only.

        Parameters
        ----------
        a, a_row : int
            Address of A[0, 0], and bytes from one row to the next.
        panel : int
            Address of a panel of packed weights (`pack`).
        y, y_row : int
            Address of C[0, first column], and bytes from one row to the next.
        k : int
            Length of the dot products, at least 4: fewer numbers are packed as 4, and as many
            of A may be read.
        rows, columns : int
            How many exist; columns may be more than a panel has.
        bias, scale, slope : int
            Addresses of a number per column, from the first on: int32, float32, float32.
        zero : int
            Zero point of C.
        as_float : int
            1 to write float32, 0 to write codes.
        """
        signature = _types.void(*[_types.int64] * 13)

        def codegen(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            builder.call(_strip(builder.module, kind), arguments)
            return context.get_dummy_value()

        return signature, codegen

    strip.__name__ = f"strip_{kind.name}"
    return _intrinsic(strip)


strip_vnni: Any = _strip_of(Vnni)
strip_avx2: Any = _strip_of(Avx2)
