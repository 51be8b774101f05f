"""The register tile: right at every edge, and made of the instructions it was written for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llvmlite import binding as llvm
from llvmlite import ir

from minidnn.kernels import simd, tile
from minidnn.kernels.jit import kernel
from minidnn.measure.compiled import TARGETS
from tests.compiled_tiles import ON_X86, compiled_for, inner_loops, products

# Compiles one tile without running it (the host may lack the instructions), prints its assembly.
SOURCE = """
from numba import int64, void
from minidnn.kernels import simd, tile
from minidnn.kernels.jit import kernel

@kernel
def one(a, a_row, a_step, b, b_step, c, c_row, k, rows, columns, add, readable):
    tile.dot_tile(a, a_row, a_step, b, b_step, c, c_row, k, rows, columns, add, readable)

one.compile(void(*[int64] * 12))
print(simd.ISA)
print(list(one.inspect_asm().values())[0])
"""


@kernel
def _tile(a: Any, b: Any, c: Any, rows: int, columns: int, add: int, readable: bool) -> None:
    """Multiply the first `rows` of a by the first `columns` of b into c."""
    tile.dot_tile(
        a.ctypes.data, a.shape[1], 1, b.ctypes.data, b.shape[1], c.ctypes.data, c.shape[1],
        a.shape[1], rows, columns, add, readable,
    )  # fmt: skip


@pytest.mark.parametrize("add", [0, 1])
@pytest.mark.parametrize("k", [0, 1, 5])
@pytest.mark.parametrize(
    ("rows", "columns"),
    [
        (1, 1),
        (1, tile.TILE_COLUMNS),
        (2, tile.TILE.lanes + 1),
        (tile.TILE_ROWS, 1),
        (tile.FEW_ROWS, tile.TILE_COLUMNS - 1),
        (tile.FEW_ROWS + 1, tile.TILE_COLUMNS),
        (tile.TILE_ROWS - 1, tile.TILE_COLUMNS - 1),
        (tile.TILE_ROWS, tile.TILE_COLUMNS),
    ],
)
def test_writes_the_part_that_exists_and_nothing_else(
    rows: int, columns: int, k: int, add: int
) -> None:
    rng = np.random.default_rng(3)
    a = rng.standard_normal((rows, k)).astype(np.float32)
    b = rng.standard_normal((k, columns)).astype(np.float32)
    # Canaries all around: a guard row, and guard columns behind each row.
    c = np.full((rows + 1, columns + 5), 7, np.float32)
    whole = rows == tile.TILE_ROWS and columns == tile.TILE_COLUMNS
    _tile(a, b, c, rows, columns, add, whole)
    want = a.astype(np.float64) @ b + 7 * add
    np.testing.assert_allclose(c[:rows, :columns], want, rtol=0, atol=1e-5)
    assert (c[rows:] == 7).all()
    assert (c[:, columns:] == 7).all()


@kernel
def _tile_then(
    a: Any, b: Any, c: Any, rows: int, columns: int, bias: int, slope: int, moments: int, first: int
) -> None:
    """As `_tile`, with the addresses of an epilogue."""
    tile.dot_tile_then(
        a.ctypes.data, a.shape[1], 1, b.ctypes.data, b.shape[1], c.ctypes.data, c.shape[1],
        a.shape[1], rows, columns, 0, bias, slope, moments, first,
    )  # fmt: skip


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("activated", [False, True])
@pytest.mark.parametrize("summed", [False, True])
@pytest.mark.parametrize("rows", [1, tile.TILE_ROWS - 1, tile.TILE_ROWS])
@pytest.mark.parametrize("columns", [1, tile.TILE_COLUMNS - 1, tile.TILE_COLUMNS])
def test_an_epilogue_does_what_it_is_asked_for_and_no_more(
    rows: int, columns: int, biased: bool, activated: bool, summed: bool
) -> None:
    rng = np.random.default_rng(3)
    a, b = (rng.standard_normal(shape).astype(np.float32) for shape in ((rows, 5), (5, columns)))
    bias, slope = (rng.standard_normal(columns).astype(np.float32) for _ in range(2))
    moments = np.full((4, tile.TILE_COLUMNS), 7, np.float32)
    c = np.full((rows + 1, columns + 5), 7, np.float32)
    want = a.astype(np.float64) @ b + biased * bias
    want = np.where(want > 0, want, slope * want) if activated else want
    for first in (1, 0):  # twice: the second adds to the sums of the first
        _tile_then(
            a, b, c, rows, columns,
            biased * bias.ctypes.data, activated * slope.ctypes.data,
            summed * moments.ctypes.data, first,
        )  # fmt: skip
    np.testing.assert_allclose(c[:rows, :columns], want, rtol=0, atol=1e-5)
    assert (c[rows:] == 7).all()
    assert (c[:, columns:] == 7).all()
    difference = want - want[0]
    sums = [want[0], 2 * difference.sum(axis=0), 2 * np.square(difference).sum(axis=0)]
    if summed:
        np.testing.assert_allclose(moments[:3, :columns], sums, rtol=1e-5, atol=1e-4)
    assert (moments[3 * summed :] == 7).all()


def test_nan_in_the_operands_comes_out_where_it_belongs() -> None:
    a = np.ones((3, 4), np.float32)
    b = np.ones((4, 5), np.float32)
    a[1, 2] = np.nan
    c = np.zeros((3, 5), np.float32)
    _tile(a, b, c, 3, 5, 0, False)
    assert np.isnan(c).tolist() == [[False] * 5, [True] * 5, [False] * 5]


@pytest.mark.skipif(not ON_X86, reason="reads x86 assembly")
@pytest.mark.parametrize(("isa", "register"), [("avx512", "zmm"), ("avx2", "ymm")])
def test_inner_loop_is_multiply_adds_on_whole_registers_without_spills(
    isa: str, register: str, tmp_path: Path
) -> None:
    chosen, assembly = compiled_for(SOURCE, TARGETS[isa], tmp_path)
    assert chosen == isa
    shape, found = tile.TILES[isa], inner_loops(assembly)
    assert len(found) == 3, "expected loops for whole tiles, for edges, and for few rows"
    # Edges mask their loads, and with 16 registers the masks do not all fit.
    (whole,) = [loop.counts for loop in found if not loop.counts.masked]
    assert whole.spills == 0
    assert all(loop.counts.calls == 0 for loop in found)
    fused = [sum(i.kind == "fma" and i.register == register for i in x.instructions) for x in found]
    assert sorted(fused) == [n * shape.vectors for n in (shape.few, shape.rows, shape.rows)]


@pytest.mark.skipif(not ON_X86, reason="reads x86 assembly")
def test_without_fused_multiply_add_no_library_is_called(tmp_path: Path) -> None:
    chosen, assembly = compiled_for(SOURCE, TARGETS["portable"], tmp_path)
    assert chosen == "portable"
    assert "fmaf" not in assembly
    shape = tile.TILES["portable"]
    spills = {products(loop): loop.counts.spills for loop in inner_loops(assembly)}
    assert spills[shape.rows * shape.vectors] == 0


def _neon_assembly() -> str:
    """Compile the tile for an ARM CPU, with LLVM alone: Numba knows the host's family only."""
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    module = ir.Module()
    module.triple = "aarch64-unknown-linux-gnu"
    signature = ir.FunctionType(ir.VoidType(), [ir.IntType(64)] * 12)
    function = ir.Function(module, signature, "one")
    builder = ir.IRBuilder(function.append_basic_block())
    tile.Emitter(builder, tile.TILES["neon"]).emit(*function.args)
    builder.ret_void()
    machine = llvm.Target.from_triple(module.triple).create_target_machine(
        cpu="neoverse-n1", features="+neon", opt=3
    )
    passes = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(3))
    compiled = llvm.parse_assembly(str(module))
    passes.getModulePassManager().run(compiled, passes)
    return str(machine.emit_assembly(compiled))


@pytest.mark.skipif(simd.ISA == "portable", reason="multiplies and adds apart")
def test_on_arm_the_inner_loop_is_multiply_adds_without_spills() -> None:
    try:
        assembly = _neon_assembly()
    except RuntimeError as error:
        pytest.skip(f"this LLVM does not know ARM: {error}")
    shape = tile.TILES["neon"]
    counts = [loop.counts for loop in inner_loops(assembly)]
    rows = (shape.few, shape.rows, shape.rows)
    assert sorted(c.fmas for c in counts) == sorted(n * shape.vectors for n in rows)
    assert all(c.spills == 0 and c.widths.keys() == {"neon"} for c in counts)
