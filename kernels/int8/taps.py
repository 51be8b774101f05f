"""A 3x3 window that slides along the rows of a map: the 8-bit depthwise convolution.

`slide_vnni` and `slide_avx2` compute some rows of one map for one block of channels, as many as
a register has bytes (64, 32). Of each column of the window the bytes of its three rows are
interleaved with a zero, so that `Vectors.dot4` adds up a column's three products for every
channel. A column stays in registers while the window passes over it: with stride 1 each pixel
is interleaved once and used three times.

Pixels outside the map are read from `border`, a pixel of zero points: an address is chosen, not
a branch taken, and the loop is the same everywhere.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import extending
from numba.core import types

from .vectors import I64, Avx2, Vectors, Vnni

_intrinsic: Any = extending.intrinsic
_types: Any = types

TAPS = 3  # along each axis
BLOCKS = {"vnni": 4 * Vnni.lanes, "avx2": 4 * Avx2.lanes}  # channels of a call
ARGUMENTS = 20


def _constant(value: int) -> Any:
    return ir.Constant(I64, value)


class _Slide:
    """Writes the loops over rows and columns for one stride along a row."""

    def __init__(self, vectors: Vectors, stride: int, arguments: Any) -> None:
        (
            self.x, self.row, self.pixel, self.h, self.w, self.border,
            self.weights, self.bias, self.scale, self.slope,
            self.y, self.y_row, self.ow, self.stride_y, self.top, self.left,
            self.first, self.last, self.zero, _,
        ) = arguments  # fmt: skip
        self.vectors, self.builder, self.stride = vectors, vectors.builder, stride
        self.none = ir.Constant(vectors.bytes, None)

    def emit(self) -> None:
        """Write it all: what stays the same in registers, then the loops."""
        vectors = self.vectors
        taps = [
            [
                vectors.load(self.at(self.weights, self.pixel, TAPS * ky + kx), vectors.bytes)
                for ky in range(TAPS)
            ]
            for kx in range(TAPS)
        ]
        self.taps = [
            [vectors.weights(part) for part in vectors.interleave([*column, self.none])]
            for column in taps
        ]
        self.biases, self.scales, self.slopes = (
            [vectors.by_lanes(address, part, kind) for part in range(4)]
            for address, kind in (
                (self.bias, vectors.ints),
                (self.scale, vectors.floats),
                (self.slope, vectors.floats),
            )
        )
        self.zeros = vectors.splat_short(self.zero)
        self.loop(self.first, self.last, [], self.emit_row)

    def at(self, start: Any, step: Any, count: int) -> Any:
        """Return an address so many steps further on."""
        return self.builder.add(start, self.builder.mul(step, _constant(count)))

    def loop(self, start: Any, stop: Any, state: list[Any], body: Any) -> None:
        """Write ``for i in range(start, stop): state = body(i, state)``."""
        bld = self.builder
        before = bld.block
        test, inside, after = (bld.append_basic_block(n) for n in ("test", "inside", "after"))
        bld.branch(test)
        bld.position_at_end(test)
        i = bld.phi(I64)
        held = [bld.phi(value.type) for value in state]
        bld.cbranch(bld.icmp_signed("<", i, stop), inside, after)
        bld.position_at_end(inside)
        new = body(i, held)
        for phi, first, value in zip(
            [i, *held], [start, *state], [bld.add(i, _constant(1)), *new], strict=True
        ):
            phi.add_incoming(first, before)
            phi.add_incoming(value, bld.block)
        bld.branch(test)
        bld.position_at_end(after)

    def emit_row(self, oy: Any, _state: list[Any]) -> list[Any]:
        """Write one row of outputs."""
        bld = self.builder
        self.rows = []
        for ky in range(TAPS):
            iy = bld.add(bld.sub(bld.mul(oy, self.stride_y), self.top), _constant(ky))
            inside = bld.icmp_unsigned("<", iy, self.h)
            start = bld.add(self.x, bld.mul(iy, self.row))
            self.rows.append(
                (
                    bld.select(inside, start, self.border),
                    bld.select(inside, self.pixel, _constant(0)),
                )
            )
        self.y_at = bld.add(self.y, bld.mul(oy, self.y_row))
        kept = max(0, TAPS - self.stride)
        start = bld.sub(_constant(0), self.left)
        state = [part for i in range(kept) for part in self.column(self.at(start, _constant(1), i))]
        self.loop(_constant(0), self.ow, state, self.emit_pixel)
        return []

    def column(self, ix: Any) -> list[Any]:
        """Return a column of the window as four vectors of (row 0, row 1, row 2, 0)."""
        bld = self.builder
        inside = bld.icmp_unsigned("<", ix, self.w)
        pixels = []
        for start, step in self.rows:
            address = bld.select(inside, bld.add(start, bld.mul(ix, step)), self.border)
            pixels.append(self.vectors.load(address, self.vectors.bytes))
        return self.vectors.interleave([*pixels, self.none])

    def emit_pixel(self, ox: Any, kept: list[Any]) -> list[Any]:
        """Write one output pixel; return the columns that the next one needs too."""
        bld, vectors = self.builder, self.vectors
        start = bld.sub(bld.mul(ox, _constant(self.stride)), self.left)
        columns = [kept[i : i + 4] for i in range(0, len(kept), 4)]
        for i in range(len(columns), TAPS):
            columns.append(self.column(bld.add(start, _constant(i))))
        sums = self.biases
        for column, taps in zip(columns, self.taps, strict=True):
            sums = [
                vectors.dot4(total, vectors.activations(part), tap)
                for total, part, tap in zip(sums, column, taps, strict=True)
            ]
        floats = [
            vectors.scaled(total, scale, slope)
            for total, scale, slope in zip(sums, self.scales, self.slopes, strict=True)
        ]
        place = bld.add(self.y_at, bld.mul(ox, self.pixel))
        vectors.store(vectors.codes(floats, self.zeros), place)
        return [part for column in columns[self.stride :] for part in column]


def _slide(module: Any, kind: type[Vectors], stride: int) -> Any:
    name = f"minidnn.int8_slide_{kind.name}_{stride}"
    if name in module.globals:
        return module.globals[name]
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [I64] * ARGUMENTS), name)
    function.linkage = "linkonce_odr"
    function.attributes.add("noinline")
    builder = ir.IRBuilder(function.append_basic_block())
    _Slide(kind(builder), stride, function.args).emit()
    builder.ret_void()
    return function


def _slide_of(kind: type[Vectors]) -> Any:
    def slide(
        typing_context: Any, x: Any, row: Any, pixel: Any, h: Any, w: Any, border: Any,
        weights: Any, bias: Any, scale: Any, slope: Any, y: Any, y_row: Any, ow: Any,
        stride_y: Any, top: Any, left: Any, first: Any, last: Any, zero: Any, stride_x: Any,
    ) -> Any:  # fmt: skip
        """Compute output rows first .. last - 1 of a map for a block of channels.

        Parameters
        ----------
        x, row, pixel : int
            Address of the map's first pixel at the block's first channel; bytes from one row
            to the next, and from one pixel to the next, which is the number of channels.
        h, w : int
            Size of the map.
        border : int
            Address of a pixel of zero points, at the block's first channel.
        weights : int
            Address of the (3, 3, C) weights, at the block's first channel.
        bias, scale, slope : int
            Addresses of int32, float32 and float32 numbers, at the block's first channel.
        y, y_row, ow : int
            Address of the output's first pixel, bytes of an output row, outputs of a row.
        stride_y, top, left : int
            Rows from one window to the next; padding.
        zero : int
            Zero point of the output.
        stride_x : int
            1 or 2.
        """
        signature = _types.void(*[_types.int64] * ARGUMENTS)

        def codegen(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            one = builder.icmp_signed("==", arguments[-1], _constant(1))
            with builder.if_else(one) as (then, otherwise):
                with then:
                    builder.call(_slide(builder.module, kind, 1), arguments)
                with otherwise:
                    builder.call(_slide(builder.module, kind, 2), arguments)
            return context.get_dummy_value()

        return signature, codegen

    slide.__name__ = f"slide_{kind.name}"
    return _intrinsic(slide)


slide_vnni: Any = _slide_of(Vnni)
slide_avx2: Any = _slide_of(Avx2)
