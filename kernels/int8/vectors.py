"""Vectors of bytes, of 32-bit sums and of floats: what the 8-bit kernels write machine code with.

One class per instruction set, with the same methods. They differ in `dot4`, the heart of it:
four products of unsigned with signed bytes, added to a 32-bit sum, in every lane.

- `Vnni` (AVX-512): one instruction, vpdpbusd, for 16 lanes, 64 products.
- `Avx2`: bytes are widened to 16 bits first, even and odd ones apart; vpmaddwd multiplies and
  adds pairs. The shorter vpmaddubsw is no way: it adds two products in 16 bits, where
  2 * 255 * 127 does not fit, and cuts off what is too much.

Registers come in *lanes of 16 bytes*: instructions that interleave or pack numbers work inside
each lane of 16 alone. Interleaving four vectors of bytes (`interleave`) puts the bytes of one
channel side by side, for `dot4`; packing four vectors of results (`codes`) undoes exactly that.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from ..simd import declare, spread

I8, I16, I32, I64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
F32 = ir.FloatType()


class Vectors:
    """What both instruction sets share; `lanes` 32-bit numbers fill a register.

    Attributes
    ----------
    heights : tuple of int
        Rows of the register tiles, largest first: rows * 2 sums, the weights and a row's
        activations must fit the registers.
    """

    name = ""
    lanes = 0
    heights: tuple[int, ...] = ()

    def __init__(self, builder: Any) -> None:
        self.builder = builder
        self.width = 4 * self.lanes  # bytes
        self.ints = ir.VectorType(I32, self.lanes)
        self.floats = ir.VectorType(F32, self.lanes)
        self.bytes = ir.VectorType(I8, self.width)
        self.shorts = ir.VectorType(I16, self.width // 2)

    # --- what the instruction sets do differently ------------------------------------------

    def weights(self, vector: Any) -> Any:
        """Make signed bytes ready for `dot4`."""
        raise NotImplementedError

    def activations(self, vector: Any) -> Any:
        """Make unsigned bytes ready for `dot4`."""
        raise NotImplementedError

    def dot4(self, total: Any, activations: Any, weights: Any) -> Any:
        """Return total + the sum of four products, in every lane."""
        raise NotImplementedError

    def to_ints(self, floats: Any) -> Any:
        """Round to the nearest integer, to the even one of two."""
        raise NotImplementedError

    def pack_shorts(self, low: Any, high: Any) -> Any:
        """Pack 32-bit numbers into 16 bits, saturated, inside each lane of 16 bytes."""
        raise NotImplementedError

    def pack_bytes(self, low: Any, high: Any) -> Any:
        """Pack signed 16-bit numbers into 0..255, saturated, inside each lane of 16 bytes."""
        raise NotImplementedError

    # --- memory ------------------------------------------------------------------------------

    def pointer(self, address: Any, kind: Any) -> Any:
        """Return a pointer to a vector at an address."""
        return self.builder.inttoptr(address, kind.as_pointer())

    def offset(self, address: Any, count: int) -> Any:
        """Return an address so many bytes further on."""
        return self.builder.add(address, ir.Constant(I64, count))

    def load(self, address: Any, kind: Any) -> Any:
        """Read a vector; any alignment will do."""
        return self.builder.load(self.pointer(address, kind), align=1)

    def store(self, vector: Any, address: Any) -> None:
        """Write a vector."""
        self.builder.store(vector, self.pointer(address, vector.type), align=1)

    def four_bytes(self, address: Any) -> Any:
        """Read 4 bytes and copy them to every lane."""
        number = self.builder.load(self.pointer(address, I32), align=1)
        return self.builder.bitcast(spread(self.builder, number, self.ints), self.bytes)

    def by_lanes(self, address: Any, part: int, kind: Any) -> Any:
        """Read 32-bit numbers in the order in which `interleave` has channels.

        Part p of 4 has, in lane n of 16 bytes, the four channels from 16 n + 4 p on.
        """
        bld, quad = self.builder, ir.VectorType(kind.element, 4)
        quads = [
            bld.load(self.pointer(self.offset(address, 4 * (16 * n + 4 * part)), quad), align=4)
            for n in range(self.lanes // 4)
        ]
        return self.concatenated(quads)

    def concatenated(self, vectors: list[Any]) -> Any:
        """Return vectors one after the other as one; their number is a power of two."""
        while len(vectors) > 1:
            count = 2 * vectors[0].type.count
            order = ir.Constant(ir.VectorType(I32, count), list(range(count)))
            pairs = zip(vectors[::2], vectors[1::2], strict=True)
            vectors = [self.builder.shuffle_vector(a, b, order) for a, b in pairs]
        return vectors[0]

    # --- bytes in and out ----------------------------------------------------------------------

    def interleave(self, four: list[Any]) -> list[Any]:
        """Return four vectors of bytes as four, the four of each channel together: by lanes."""
        low, high = self._zipped(*four[:2]), self._zipped(*four[2:])
        parts = []
        for i in range(2):
            pairs = [self.builder.bitcast(v[i], self.shorts) for v in (low, high)]
            parts += [self.builder.bitcast(v, self.bytes) for v in self._zipped(*pairs)]
        return parts

    def _zipped(self, a: Any, b: Any) -> list[Any]:
        """Interleave the lower half of each lane of 16 bytes, and the upper half."""
        count = a.type.count
        per_lane = 16 * count // self.width
        halves = []
        for half in range(2):
            order = []
            for lane in range(0, count, per_lane):
                for i in range(per_lane // 2):
                    place = lane + half * per_lane // 2 + i
                    order += [place, count + place]
            mask = ir.Constant(ir.VectorType(I32, count), order)
            halves.append(self.builder.shuffle_vector(a, b, mask))
        return halves

    def scaled(self, total: Any, scale: Any, slope: Any) -> Any:
        """Return float32(total) * scale, and times slope where that is not positive."""
        bld = self.builder
        y = bld.fmul(bld.sitofp(total, self.floats), scale)
        positive = bld.fcmp_ordered(">", y, ir.Constant(self.floats, [0.0] * self.lanes))
        return bld.select(positive, y, bld.fmul(y, slope))

    def codes(self, floats: list[Any], zero: Any) -> Any:
        """Return clip(rint(y) + zero, 0, 255) of four vectors as bytes, in lanes of 16.

        `zero`: a vector of 16-bit numbers. A 16-bit number that is saturated stays below 0 or
        above 255 when it is added, so that only the last step decides.
        """
        ints = [self.to_ints(y) for y in floats]
        pairs = [self.pack_shorts(*ints[:2]), self.pack_shorts(*ints[2:])]
        return self.pack_bytes(*(self.builder.add(pair, zero) for pair in pairs))

    def splat_short(self, number: Any) -> Any:
        """Return an int64 in every 16-bit lane."""
        return spread(self.builder, self.builder.trunc(number, I16), self.shorts)

    def in_order(self, packed: Any) -> Any:
        """Sort what `codes` gave: all bytes of the first vector, then of the second, and so on."""
        places = [4 * lane + vector for vector in range(4) for lane in range(self.lanes // 4)]
        words = self.builder.bitcast(packed, self.ints)
        mask = ir.Constant(ir.VectorType(I32, self.lanes), places)
        sorted_words = self.builder.shuffle_vector(words, words, mask)
        return self.builder.bitcast(sorted_words, self.bytes)

    def call(self, name: str, returns: Any, arguments: list[Any]) -> Any:
        """Call one of LLVM's functions for this CPU."""
        kinds = [argument.type for argument in arguments]
        return self.builder.call(declare(self.builder.module, name, returns, kinds), arguments)


class Vnni(Vectors):
    """AVX-512 with VNNI: 32 registers of 16 sums."""

    name, lanes, heights = "vnni", 16, (14, 9, 7, 4, 2, 1)

    def weights(self, vector: Any) -> Any:
        return self.builder.bitcast(vector, self.ints)

    def activations(self, vector: Any) -> Any:
        return self.builder.bitcast(vector, self.ints)

    def dot4(self, total: Any, activations: Any, weights: Any) -> Any:
        # Up to LLVM 21 the bytes are declared as int32; later ones still take that.
        return self.call("llvm.x86.avx512.vpdpbusd.512", self.ints, [total, activations, weights])

    def to_ints(self, floats: Any) -> Any:
        everything, as_set = ir.Constant(I16, 0xFFFF), ir.Constant(I32, 4)
        arguments = [floats, ir.Constant(self.ints, None), everything, as_set]
        return self.call("llvm.x86.avx512.mask.cvtps2dq.512", self.ints, arguments)

    def pack_shorts(self, low: Any, high: Any) -> Any:
        return self.call("llvm.x86.avx512.packssdw.512", self.shorts, [low, high])

    def pack_bytes(self, low: Any, high: Any) -> Any:
        return self.call("llvm.x86.avx512.packuswb.512", self.bytes, [low, high])


class Avx2(Vectors):
    """AVX2: 16 registers of 8 sums; bytes are widened to 16 bits, even and odd ones apart."""

    name, lanes, heights = "avx2", 8, (4, 2, 1)

    def weights(self, vector: Any) -> Any:
        words, eight = self.builder.bitcast(vector, self.shorts), self._eight()
        even = self.builder.ashr(self.builder.shl(words, eight), eight)
        return even, self.builder.ashr(words, eight)

    def activations(self, vector: Any) -> Any:
        words = self.builder.bitcast(vector, self.shorts)
        low = ir.Constant(self.shorts, [255] * self.shorts.count)
        return self.builder.and_(words, low), self.builder.lshr(words, self._eight())

    def _eight(self) -> Any:
        return ir.Constant(self.shorts, [8] * self.shorts.count)

    def dot4(self, total: Any, activations: Any, weights: Any) -> Any:
        for a, w in zip(activations, weights, strict=True):
            pairs = self.call("llvm.x86.avx2.pmadd.wd", self.ints, [a, w])
            total = self.builder.add(total, pairs)
        return total

    def to_ints(self, floats: Any) -> Any:
        return self.call("llvm.x86.avx.cvt.ps2dq.256", self.ints, [floats])

    def pack_shorts(self, low: Any, high: Any) -> Any:
        return self.call("llvm.x86.avx2.packssdw", self.shorts, [low, high])

    def pack_bytes(self, low: Any, high: Any) -> Any:
        return self.call("llvm.x86.avx2.packuswb", self.bytes, [low, high])
