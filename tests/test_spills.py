"""The register tiles of inference keep all their sums in registers, for every height."""

from __future__ import annotations

from pathlib import Path

import pytest

from minidnn.kernels import tile
from minidnn.kernels.int8.vectors import Avx2, Vectors, Vnni
from minidnn.kernels.simd import CACHE_LINE
from minidnn.measure.compiled import TARGETS
from tests.compiled_tiles import ON_X86, compiled_for, inner_loops, products

pytestmark = pytest.mark.skipif(not ON_X86, reason="reads x86 assembly")

PANEL = """
from numba import int64, void
from minidnn.kernels import simd
from minidnn.kernels.jit import kernel
from minidnn.kernels.panel_tile import panel_tile

@kernel
def one(rows, a, a_row, runs, run_step, b, k, c, c_row, columns, bias, slope):
    panel_tile(rows, a, a_row, runs, run_step, b, k, c, c_row, columns, bias, slope)

one.compile(void(*[int64] * 12))
print(simd.ISA)
print(list(one.inspect_asm().values())[0])
"""
HALVES = """
from numba import int64, void
from minidnn.kernels import simd
from minidnn.kernels.jit import kernel
from minidnn.kernels.halves_tile import halves_tile

@kernel
def one(
    rows, a, a_row, lower, sums, sums_row, b, k, kept, c, c_row, c_lower, right, bias, slope, lone,
):
    halves_tile(
        rows, a, a_row, lower, sums, sums_row, b, k, kept, c, c_row, c_lower, right, bias, slope,
        lone,
    )

one.compile(void(*[int64] * 16))
print(simd.ISA)
print(list(one.inspect_asm().values())[0])
"""
STRIP = """
from numba import int64, void
from minidnn.kernels import simd
from minidnn.kernels.jit import exact
from minidnn.kernels.int8.tile import strip_{name}

@exact
def one(a, a_row, panel, y, y_row, k, rows, columns, bias, scale, slope, zero, as_float):
    strip_{name}(
        a, a_row, panel, y, y_row, k, rows, columns, bias, scale, slope, zero, as_float
    )

one.compile(void(*[int64] * 13))
print(simd.ISA)
print(list(one.inspect_asm().values())[0])
"""
WITH_VNNI = {
    "NUMBA_CPU_NAME": "cascadelake",
    "NUMBA_CPU_FEATURES": TARGETS["avx512"]["NUMBA_CPU_FEATURES"] + ",+avx512vnni",
}


@pytest.mark.parametrize("source", [PANEL, HALVES], ids=["whole", "by_halves"])
@pytest.mark.parametrize("isa", ["avx512", "avx2"])
def test_a_panel_of_float32_numbers_is_asked_for_early_and_multiplied_in_registers(
    isa: str, source: str, tmp_path: Path
) -> None:
    chosen, assembly = compiled_for(source, TARGETS[isa], tmp_path)
    assert chosen == isa
    shape, found = tile.TILES[isa], inner_loops(assembly)
    # Short loops are unrolled, and have a rest; the tall ones are what counts.
    tall = {rows * shape.vectors for rows in range(4, shape.rows + 1)}
    assert tall <= {products(loop) for loop in found}
    assert len(found) >= shape.rows
    assert all(loop.counts.spills == 0 for loop in found)
    assert all(loop.counts.calls == 0 for loop in found)
    lines = 4 * shape.columns // CACHE_LINE  # of the matrix that a step reads, and asks for
    asked = [sum(i.name == "prefetcht1" for i in loop.instructions) for loop in found]
    assert min(asked) >= lines


@pytest.mark.parametrize(
    ("kind", "target", "each"),
    [(Vnni, WITH_VNNI, 2), (Avx2, TARGETS["avx2"], 4)],
    ids=["vnni", "avx2"],
)
def test_a_panel_of_bytes_is_multiplied_in_registers(
    kind: type[Vectors], target: dict[str, str], each: int, tmp_path: Path
) -> None:
    chosen, assembly = compiled_for(STRIP.format(name=kind.name), target, tmp_path)
    assert chosen == ("avx512" if kind is Vnni else "avx2")
    found = inner_loops(assembly)
    assert sorted(map(products, found)) == sorted(each * rows for rows in kind.heights)
    assert [loop.counts.spills for loop in found] == [0] * len(kind.heights)
    assert all(loop.counts.calls == 0 for loop in found)


@pytest.mark.parametrize("rows", [3, 40])
def test_a_tile_that_is_too_tall_spills(rows: int, tmp_path: Path) -> None:
    source = PANEL.replace(
        "from minidnn.kernels.panel_tile import panel_tile",
        "from minidnn.kernels import tile\n"
        f"tile.TILE = tile.TILE._replace(rows={rows})\n"
        "from minidnn.kernels.panel_tile import panel_tile",
    )
    _, assembly = compiled_for(source, TARGETS["avx2"], tmp_path)
    spilled = sum(loop.counts.spills for loop in inner_loops(assembly))
    assert (spilled > 0) == (rows == 40)
