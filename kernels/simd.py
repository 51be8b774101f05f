"""Explicit SIMD for Numba: which instructions to use, and vectors as values.

Numba vectorises a loop over channels by itself, but it does not keep several sums in
registers at once. What is here does: intrinsics, functions whose machine code we write out
in LLVM's language through llvmlite.

`load`, `store`, `zero`, `splat`, `add`, `subtract`, `multiply`, `multiply_add`, `maximum`,
`total`, `highest` and the selects `where_...` work on vectors of `LANES` float32 values, which
a kernel holds in plain variables; they cannot be put into tuples or arrays. `depthwise`,
`batchnorm` and others are written with them. Max pooling also needs vectors of as many bytes.

Addresses are int64 (`address`): an array's own `ctypes.data` is unsigned, and Numba turns the
sum of an unsigned and a signed number into a float64.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from llvmlite import ir
from numba import extending
from numba.core import cgutils, datamodel, types

from .checks import Array, InputError
from .jit import kernel, target

_intrinsic: Any = extending.intrinsic
_types: Any = types
_register_model: Any = extending.register_model
_datamodel: Any = datamodel


# float32 values in one vector register.
WIDTHS = {"avx512": 16, "avx2": 8, "neon": 4, "portable": 4}


def instruction_set() -> str:
    """Return the key of `WIDTHS` for the CPU that Numba compiles for.

    `MINIDNN_SIMD` forces one of them. The host's own features do not count: with
    ``NUMBA_CPU_NAME=haswell`` Numba compiles for less than the host has.
    """
    forced = os.environ.get("MINIDNN_SIMD")
    if forced:
        if forced not in WIDTHS:
            raise InputError(f"MINIDNN_SIMD: expected one of {', '.join(WIDTHS)}, got {forced!r}")
        return forced
    triple, _, features = target()
    enabled = set(features.split(","))
    if "+avx512f" in enabled:
        return "avx512"
    if {"+avx2", "+fma"} <= enabled:
        return "avx2"
    return "neon" if "+neon" in enabled or triple.startswith(("aarch64", "arm64")) else "portable"


def has_vnni() -> bool:
    """Tell whether Numba compiles for AVX-512 with VNNI: products of bytes, added four at a time.

    `MINIDNN_SIMD` can rule it out, never promise it.
    """
    enabled = set(target()[2].split(","))
    return instruction_set() == "avx512" and {"+avx512vnni", "+avx512bw"} <= enabled


ISA = instruction_set()
VNNI = has_vnni()
LANES = WIDTHS[ISA]  # a plain number, for kernels to read
VECTOR_BYTES = 4 * LANES
CACHE_LINE = 64

_F32 = ir.FloatType()


# --- vectors as values ------------------------------------------------------------------

_VECTOR = ir.VectorType(_F32, LANES)
_HALVES = (0, LANES // 2)
_BYTES = ir.VectorType(ir.IntType(8), LANES)


# Numba's base classes have no types that mypy could check these two against.
class _VectorType(_types.Type):  # type: ignore[misc]  # a class without types
    """Numba's name for a vector in a register; `llvm` is LLVM's type."""

    def __init__(self, name: str, llvm: Any) -> None:
        super().__init__(name=f"{name}x{LANES}")
        self.llvm = llvm


class _VectorModel(_datamodel.PrimitiveModel):  # type: ignore[misc]  # a class without types
    """A vector is passed around as LLVM's vector type."""

    def __init__(self, manager: Any, front_end_type: Any) -> None:
        super().__init__(manager, front_end_type, front_end_type.llvm)


_register_model(_VectorType)(_VectorModel)
_vector, _bytes = _VectorType("float32", _VECTOR), _VectorType("uint8", _BYTES)


def declare(module: Any, name: str, returns: Any, arguments: list[Any]) -> Any:
    """Declare a function from outside, such as LLVM's own on vectors, once per module."""
    if name in module.globals:
        return module.globals[name]
    return ir.Function(module, ir.FunctionType(returns, arguments), name=name)


def fused(module: Any, vector: Any) -> Any:
    """Declare a * b + c on vectors."""
    # Without FMA instructions `llvm.fma` becomes a library call; fmuladd may round twice.
    name = "llvm.fmuladd" if ISA == "portable" else "llvm.fma"
    return declare(module, f"{name}.v{vector.count}f32", vector, [vector] * 3)


def spread(builder: Any, scalar: Any, vector: Any) -> Any:
    """Copy a scalar to every lane of a vector type."""
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), vector.count), [0] * vector.count)
    start = ir.Constant(vector, ir.Undefined)
    one = builder.insert_element(start, scalar, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(one, start, zeros)


def _pointer(builder: Any, address: Any) -> Any:
    return builder.inttoptr(address, _VECTOR.as_pointer())


def _load(typing_context: Any, address: Any) -> Any:
    """Read `LANES` float32 values from an address (an integer); any alignment will do."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load(_pointer(builder, arguments[0]), align=4)

    return _vector(_types.int64), codegen


def _store(typing_context: Any, vector: Any, address: Any) -> Any:
    """Write a vector to an address; any alignment will do."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.store(arguments[0], _pointer(builder, arguments[1]), align=4)
        return context.get_dummy_value()

    return _types.void(_vector, _types.int64), codegen


def _mask(builder: Any, count: Any) -> Any:
    """Return which lanes come before `count` (an int64)."""
    number = ir.IntType(32)
    lanes = ir.Constant(ir.VectorType(number, LANES), list(range(LANES)))
    counts = spread(builder, builder.trunc(count, number), ir.VectorType(number, LANES))
    return builder.icmp_signed("<", lanes, counts)


def _load_part(typing_context: Any, address: Any, count: Any) -> Any:
    """Read `count` float32 values, fewer than `LANES`, and no memory behind them; the rest is 0."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer, mask = _VECTOR.as_pointer(), _mask(builder, arguments[1])
        kinds = [pointer, ir.IntType(32), mask.type, _VECTOR]
        function = declare(builder.module, f"llvm.masked.load.v{LANES}f32.p0", _VECTOR, kinds)
        align, zeros = ir.Constant(ir.IntType(32), 4), ir.Constant(_VECTOR, None)
        return builder.call(function, [_pointer(builder, arguments[0]), align, mask, zeros])

    return _vector(_types.int64, _types.int64), codegen


def _store_part(typing_context: Any, vector: Any, address: Any, count: Any) -> Any:
    """Write the first `count` lanes of a vector, and touch nothing behind them."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        vector, address, count = arguments
        pointer, mask = _VECTOR.as_pointer(), _mask(builder, count)
        kinds = [_VECTOR, pointer, ir.IntType(32), mask.type]
        name = f"llvm.masked.store.v{LANES}f32.p0"
        function = declare(builder.module, name, ir.VoidType(), kinds)
        align = ir.Constant(ir.IntType(32), 4)
        builder.call(function, [vector, _pointer(builder, address), align, mask])
        return context.get_dummy_value()

    return _types.void(_vector, _types.int64, _types.int64), codegen


def _stream(typing_context: Any, vector: Any, address: Any) -> Any:
    """Write a vector past the caches, to an address that is a multiple of its size.

    For what nobody reads soon and caches cannot hold: an ordinary store reads the cache line
    from memory first. Vectors shorter than a line are stored as usual: pieces of lines are
    slower. Other threads see it after `fence`.
    """

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        whole_line = VECTOR_BYTES == CACHE_LINE
        align = VECTOR_BYTES if whole_line else 4
        written = builder.store(arguments[0], _pointer(builder, arguments[1]), align=align)
        if whole_line:
            one = builder.module.add_metadata([ir.Constant(ir.IntType(32), 1)])
            written.set_metadata("nontemporal", one)
        return context.get_dummy_value()

    return _types.void(_vector, _types.int64), codegen


def _fence(typing_context: Any) -> Any:
    """Finish all writes, streamed ones too, before those that follow."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return _types.void(), codegen


def _zero(typing_context: Any) -> Any:
    """Return a vector of zeros."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return ir.Constant(_VECTOR, [0.0] * LANES)

    return _vector(), codegen


def _splat(typing_context: Any, value: Any) -> Any:
    """Return a vector that holds one number in every lane."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return spread(builder, arguments[0], _VECTOR)

    return _vector(_types.float32), codegen


def _add(typing_context: Any, a: Any, b: Any) -> Any:
    """Return a + b, lane by lane."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fadd(*arguments)

    return _vector(_vector, _vector), codegen


def _subtract(typing_context: Any, a: Any, b: Any) -> Any:
    """Return a - b, lane by lane."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fsub(*arguments)

    return _vector(_vector, _vector), codegen


def _multiply(typing_context: Any, a: Any, b: Any) -> Any:
    """Return a * b, lane by lane."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fmul(*arguments)

    return _vector(_vector, _vector), codegen


def _multiply_add(typing_context: Any, a: Any, b: Any, c: Any) -> Any:
    """Return a * b + c, lane by lane: one instruction where the CPU has it."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.call(fused(builder.module, _VECTOR), arguments)

    return _vector(_vector, _vector, _vector), codegen


def _maximum(typing_context: Any, a: Any, b: Any) -> Any:
    """Return the larger of a and b, lane by lane; NaN where one of them is."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        name = f"llvm.maximum.v{LANES}f32"
        function = declare(builder.module, name, _VECTOR, [_VECTOR] * 2)
        return builder.call(function, arguments, fastmath=("nsz",))

    return _vector(_vector, _vector), codegen


def _total(typing_context: Any, a: Any) -> Any:
    """Return the sum of all lanes, a float32 number."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        name = f"llvm.vector.reduce.fadd.v{LANES}f32"
        function = declare(builder.module, name, _F32, [_F32, _VECTOR])
        # Pairwise; without the flag the lanes would be added one after the other.
        start = ir.Constant(_F32, -0.0)
        return builder.call(function, [start, *arguments], fastmath=("reassoc",))

    return _types.float32(_vector), codegen


def _highest(typing_context: Any, a: Any) -> Any:
    """Return the largest of all lanes, a float32 number; NaN if one is."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        name = f"llvm.vector.reduce.fmaximum.v{LANES}f32"
        function = declare(builder.module, name, _F32, [_VECTOR])
        return builder.call(function, arguments, fastmath=("nsz",))

    return _types.float32(_vector), codegen


def _power_of_two(typing_context: Any, a: Any) -> Any:
    """Return 2 ** n where a = 1.5 * 2 ** 23 + n, n from -126 to 127; for others some number.

    A float32 of that size has n in its last bits; shifted to where exponents are, it is done.
    """

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        integers = ir.VectorType(ir.IntType(32), LANES)
        bits = builder.bitcast(arguments[0], integers)
        shifted = builder.shl(bits, ir.Constant(integers, [23] * LANES))
        one = ir.Constant(integers, [0x3F800000] * LANES)
        return builder.bitcast(builder.add(shifted, one), _VECTOR)

    return _vector(_vector), codegen


def _where_positive(typing_context: Any, x: Any, a: Any, b: Any) -> Any:
    """Return a where x > 0 and b elsewhere, also where x is NaN, lane by lane."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        x, a, b = arguments
        return builder.select(builder.fcmp_ordered(">", x, ir.Constant(_VECTOR, None)), a, b)

    return _vector(_vector, _vector, _vector), codegen


def _where_beaten(typing_context: Any, x: Any, y: Any, a: Any, b: Any) -> Any:
    """Return a where y > x or y is NaN and b elsewhere; a and b are bytes or numbers both."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        x, y, a, b = arguments
        beaten = builder.or_(builder.fcmp_ordered(">", y, x), builder.fcmp_unordered("uno", y, y))
        return builder.select(beaten, a, b)

    return a(_vector, _vector, a, a), codegen


def _where_equal(typing_context: Any, x: Any, y: Any, a: Any, b: Any) -> Any:
    """Return numbers: a where the bytes x and y are equal, b elsewhere."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        x, y, a, b = arguments
        return builder.select(builder.icmp_unsigned("==", x, y), a, b)

    return _vector(_bytes, _bytes, _vector, _vector), codegen


def _splat_byte(typing_context: Any, value: Any) -> Any:
    """Return a vector of bytes that are all the same."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return spread(builder, arguments[0], _BYTES)

    return _bytes(_types.uint8), codegen


def _load_bytes(typing_context: Any, address: Any) -> Any:
    """Read `LANES` bytes from an address."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load(builder.inttoptr(arguments[0], _BYTES.as_pointer()), align=1)

    return _bytes(_types.int64), codegen


def _store_bytes(typing_context: Any, vector: Any, address: Any) -> Any:
    """Write a vector of bytes to an address."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = builder.inttoptr(arguments[1], _BYTES.as_pointer())
        builder.store(arguments[0], pointer, align=1)
        return context.get_dummy_value()

    return _types.void(_bytes, _types.int64), codegen


def emit_prefetch(builder: Any, address: Any) -> None:
    """Write the instruction of `prefetch`."""
    pointer, number = ir.IntType(8).as_pointer(), ir.IntType(32)
    function = declare(
        builder.module, "llvm.prefetch.p0", ir.VoidType(), [pointer, number, number, number]
    )
    # To read, into the second-level cache and what lies below, and it is data.
    settings = [ir.Constant(number, value) for value in (0, 2, 1)]
    builder.call(function, [builder.inttoptr(address, pointer), *settings])


def _prefetch(typing_context: Any, address: Any) -> Any:
    """Ask for the cache line at an address, to be read soon; any address will do."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit_prefetch(builder, arguments[0])
        return context.get_dummy_value()

    return _types.void(_types.int64), codegen


def _prefetch_run(typing_context: Any, start: Any, size: Any) -> Any:
    """Ask for so many bytes from an address on, line by line; they need not exist."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        start, size = arguments
        number = start.type
        with cgutils.for_range_slice(
            builder, start, builder.add(start, size), ir.Constant(number, CACHE_LINE), number
        ) as (line, _):
            emit_prefetch(builder, line)
        return context.get_dummy_value()

    return _types.void(_types.int64, _types.int64), codegen


def _transpose_block(
    typing_context: Any, source: Any, row: Any, target: Any, target_row: Any
) -> Any:
    """Copy a block of LANES x LANES float32 values, transposed, between two addresses.

    Rows lie `row` and `target_row` bytes apart. Interleaving the upper half of the rows with
    the lower half, number by number, is a step of a perfect shuffle: log2(LANES) of them
    exchange rows and columns.
    """

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        source, row, target, target_row = arguments

        def pointer(start: Any, step: Any, i: int) -> Any:
            offset = builder.mul(step, ir.Constant(ir.IntType(64), i))
            return _pointer(builder, builder.add(start, offset))

        places = [[half + i // 2 + LANES * (i % 2) for i in range(LANES)] for half in _HALVES]
        orders = [ir.Constant(ir.VectorType(ir.IntType(32), LANES), p) for p in places]
        rows = [builder.load(pointer(source, row, i), align=4) for i in range(LANES)]
        for _ in range(LANES.bit_length() - 1):
            pairs = zip(rows[: LANES // 2], rows[LANES // 2 :], strict=True)
            rows = [builder.shuffle_vector(a, b, order) for a, b in pairs for order in orders]
        for i, vector in enumerate(rows):
            builder.store(vector, pointer(target, target_row, i), align=4)
        return context.get_dummy_value()

    return _types.void(*[_types.int64] * 4), codegen


transpose_block: Any = _intrinsic(_transpose_block)
load: Any = _intrinsic(_load)
store: Any = _intrinsic(_store)
load_part: Any = _intrinsic(_load_part)
store_part: Any = _intrinsic(_store_part)
stream: Any = _intrinsic(_stream)
fence: Any = _intrinsic(_fence)
zero: Any = _intrinsic(_zero)
splat: Any = _intrinsic(_splat)
add: Any = _intrinsic(_add)
subtract: Any = _intrinsic(_subtract)
multiply: Any = _intrinsic(_multiply)
multiply_add: Any = _intrinsic(_multiply_add)
maximum: Any = _intrinsic(_maximum)
total: Any = _intrinsic(_total)
highest: Any = _intrinsic(_highest)
power_of_two: Any = _intrinsic(_power_of_two)
where_positive: Any = _intrinsic(_where_positive)
where_beaten: Any = _intrinsic(_where_beaten)
where_equal: Any = _intrinsic(_where_equal)
splat_byte: Any = _intrinsic(_splat_byte)
load_bytes: Any = _intrinsic(_load_bytes)
store_bytes: Any = _intrinsic(_store_bytes)
prefetch: Any = _intrinsic(_prefetch)
prefetch_run: Any = _intrinsic(_prefetch_run)


@kernel
def address(a: Array) -> int:
    """Return where an array begins, as an int64."""
    return np.int64(a.ctypes.data)  # type: ignore[return-value]  # Numba's name for int


# Bytes of an array that is far larger than the caches a core may count on.
FAR = 8 << 20


def is_far(y: Array) -> bool:
    """Tell whether y (..., C) is best written past the caches, by `stream`: large, and aligned."""
    aligned = y.ctypes.data % CACHE_LINE == 0 and y.shape[-1] % LANES == 0
    return y.nbytes >= FAR and y.itemsize == 4 and aligned and VECTOR_BYTES == CACHE_LINE


@kernel
def whole_vectors(x: Array) -> int:
    """Return how many bytes of a row of x (..., C) whole vectors cover; 0 unless it is float32.

    What is left, fewer than `LANES` channels or all of another type, is for plain loops.
    """
    return x.shape[-1] // LANES * VECTOR_BYTES if x.itemsize == 4 else 0
