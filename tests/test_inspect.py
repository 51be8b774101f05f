"""`minidnn inspect`: what is counted in assembly, and what is said about it."""

from __future__ import annotations

import json
import platform
from typing import Any

import numba
import numpy as np
import pytest

from minidnn.cli import main
from minidnn.kernels import simd
from minidnn.measure.assembly import Counts, Loop, functions, hot_loops, loops
from minidnn.measure.compiled import Compiled, compiled_functions
from minidnn.measure.inspection import Inspected, parallel_text, readable, verdict
from minidnn.measure.instructions import arm, x86

ON_X86 = platform.machine().lower() in ("x86_64", "amd64")

VECTORS = """
	.text
	.type	one,@function
one:
	.cfi_startproc
	xorl	%eax, %eax
	.p2align	4
.LBB0_1:                                # %outer
	xorl	%ecx, %ecx
	vxorps	%xmm0, %xmm0, %xmm0
.LBB0_2:                                # %inner
	vmovups	(%rdi,%rcx,4), %zmm1
	vbroadcastss	(%rsi,%rcx), %zmm2
	vfmadd231ps	%zmm1, %zmm2, %zmm0
	vfmadd231ps	64(%rdi,%rcx,4){1to16}, %zmm2, %zmm3
	vaddps	%zmm3, %zmm0, %zmm4 {%k1}
	vmovups	%zmm4, -128(%rsp)       # 64-byte Spill
	vmovups	%zmm4, (%rdx,%rcx,4)
	addq	$16, %rcx
	cmpq	%rcx, %r8
	jne	.LBB0_2
# %bb.3:
	incq	%rax
	cmpq	%rax, %r9
	jne	.LBB0_1
	vzeroupper
	retq
.Lfunc_end0:
"""
SCALARS = """
one:
	movabsq	$expf, %r12
.LBB0_1:
	vmovss	(%rdi,%rax,4), %xmm0
	callq	*%r12
	vmulss	%xmm0, %xmm0, %xmm0
	vmovss	%xmm0, (%rsi,%rax,4)
	incq	%rax
	cmpq	%rax, %rdx
	jne	.LBB0_1
	retq
"""
BRANCHES = """
one:
.LBB0_1:
	vmovss	(%rdi,%rax,4), %xmm0
	vucomiss	%xmm1, %xmm0
	ja	.LBB0_3
# %bb.2:
	vmulss	%xmm2, %xmm0, %xmm0
.LBB0_3:
	vmovss	%xmm0, (%rsi,%rax,4)
	incq	%rax
	cmpq	%rax, %rdx
	jne	.LBB0_1
	retq
"""
NEON = """
one:                                    // @one
	mov	x8, xzr
.LBB0_1:                                // %inner
	ldp	q0, q1, [x0], #32
	ldr	q2, [x1, x8]
	fmla	v3.4s, v0.4s, v2.s[0]
	fmla	v4.4s, v1.4s, v2.s[0]
	fadd	v5.4s, v3.4s, v4.4s
	str	q5, [sp, #16]                   // 16-byte Folded Spill
	st1	{ v5.4s }, [x2]
	add	x8, x8, #16
	cmp	x8, x3
	b.ne	.LBB0_1
	ret
"""


def _only(assembly: str) -> Loop:
    (loop,) = loops(assembly)
    return loop


# --- counting ---------------------------------------------------------------------------


def test_x86_instructions_of_a_turn_are_counted() -> None:
    outer, inner = loops(VECTORS)
    assert (outer.depth, outer.innermost, inner.depth, inner.innermost) == (1, False, 2, True)
    c = inner.counts
    assert (c.instructions, c.fmas, c.floats, c.selects, c.integers) == (10, 2, 1, 0, 0)
    assert (c.loads, c.stores, c.broadcasts, c.masked) == (3, 1, 2, 1)
    assert (c.calls, c.spills, c.branches) == (0, 1, 1)
    assert (c.widths, c.elements) == ({"zmm": 3}, {"float32": 3})
    assert inner.work == 16 * (2 + 2 + 1) + 0.01 * 4
    # A loop is counted without the one inside; setting a register to zero is no arithmetic.
    assert (outer.counts.instructions, outer.counts.selects, outer.counts.floats) == (5, 0, 0)
    assert hot_loops(VECTORS) == [inner]


def test_arm_instructions_of_a_turn_are_counted() -> None:
    loop = _only(NEON)
    c = loop.counts
    assert (c.instructions, c.fmas, c.floats, c.loads, c.stores) == (10, 2, 1, 3, 1)
    assert (c.spills, c.branches, c.calls, c.widths) == (1, 1, 0, {"neon": 3})
    assert loop.work == 4 * (2 + 2 + 1) + 0.01 * 4


@pytest.mark.parametrize(
    ("line", "kind", "register", "element", "lanes"),
    [
        ("vfnmadd213pd (%rax), %ymm1, %ymm2", "fma", "ymm", "float64", 4),
        ("vfmadd231ss %xmm1, %xmm2, %xmm3", "fma", "scalar", "float32", 1),
        ("mulps %xmm1, %xmm2", "float", "xmm", "float32", 4),
        ("vsqrtsd %xmm1, %xmm1, %xmm1", "float", "scalar", "float64", 1),
        ("vmaxps (%rax,%rcx,4), %zmm1, %zmm2", "float", "zmm", "float32", 16),
        ("vcmpltps %zmm1, %zmm2, %k1", "select", "zmm", "float32", 16),
        ("vblendvps %ymm3, %ymm2, %ymm1, %ymm0", "select", "ymm", "float32", 8),
        ("vmovaps %zmm1, %zmm2 {%k1}", "select", "zmm", "float32", 16),
        ("vxorps %xmm0, %xmm0, %xmm0", "other", "", "", 0),
        ("vpxor %xmm1, %xmm1, %xmm1", "other", "", "", 0),
        ("vpaddd %zmm1, %zmm2, %zmm3", "integer", "zmm", "int32", 16),
        ("paddb %xmm1, %xmm2", "integer", "xmm", "int8", 16),
        ("vpermps %zmm1, %zmm2, %zmm3", "shuffle", "zmm", "float32", 16),
        ("vgatherdps (%rax,%zmm1,4), %zmm2 {%k1}", "gather", "zmm", "float32", 16),
        ("vmovups (%rax), %ymm1", "other", "", "", 0),
        ("addq $8, %rax", "other", "", "", 0),
        ("cmpl %eax, %ebx", "other", "", "", 0),
        ("pushq %rbp", "other", "", "", 0),
        ("jmp .LBB0_1", "jump", "", "", 0),
        ("callq *%rax", "call", "", "", 0),
    ],
)
def test_x86_lines_are_told_apart(
    line: str, kind: str, register: str, element: str, lanes: int
) -> None:
    found = x86(line)
    assert (found.kind, found.register, found.element, found.lanes) == (
        kind, register, element, lanes,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("line", "kind", "register", "element", "lanes"),
    [
        ("fmla v0.2d, v1.2d, v2.2d", "fma", "neon", "float64", 2),
        ("fmla.4s v0, v1, v2[0]", "fma", "neon", "float32", 4),
        ("fmadd s0, s1, s2, s3", "fma", "scalar", "float32", 1),
        ("fadd v0.2s, v1.2s, v2.2s", "float", "half neon", "float32", 2),
        ("fmul d0, d1, d2", "float", "scalar", "float64", 1),
        ("fcmgt v0.4s, v1.4s, #0.0", "select", "neon", "float32", 4),
        ("bsl v0.16b, v1.16b, v2.16b", "select", "neon", "float32", 4),
        ("add v0.4s, v1.4s, v2.4s", "integer", "neon", "int32", 4),
        ("zip1 v0.4s, v1.4s, v2.4s", "shuffle", "neon", "float32", 4),
        ("add x0, x1, #8", "other", "", "", 0),
        ("cbnz w0, .LBB0_2", "branch", "", "", 0),
        ("b .LBB0_2", "jump", "", "", 0),
        ("bl expf", "call", "", "", 0),
    ],
)
def test_arm_lines_are_told_apart(
    line: str, kind: str, register: str, element: str, lanes: int
) -> None:
    found = arm(line)
    assert (found.kind, found.register, found.element, found.lanes) == (
        kind, register, element, lanes,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("line", "frame", "spill", "loads", "stores"),
    [
        ("vmovups %zmm3, 64(%rsp)", False, True, 0, 0),
        ("vaddps 64(%rsp), %zmm3, %zmm3", False, True, 0, 0),
        ("vmovups -64(%rbp), %zmm3", True, True, 0, 0),
        ("vmovups -64(%rbp), %zmm3", False, False, 1, 0),
        ("vmovups (%rsp,%rax,4), %zmm3", False, False, 1, 0),  # an array of the function's own
        ("movq 8(%rsp), %rax", False, False, 0, 0),
        ("vaddps %zmm1, %zmm2, %zmm2", False, False, 0, 0),
        ("addq %rax, (%rdi)", False, False, 1, 1),
        ("cmpq %rax, (%rdi)", False, False, 1, 0),
        ("leaq 8(%rdi), %rax", False, False, 0, 0),
    ],
)
def test_spills_are_told_from_other_memory(
    line: str, frame: bool, spill: bool, loads: int, stores: int
) -> None:
    found = x86(line, frame)
    assert (found.spill, found.loads, found.stores) == (spill, loads, stores)


def test_both_ways_of_a_branch_belong_to_the_turn() -> None:
    c = _only(BRANCHES).counts
    assert (c.instructions, c.branches, c.floats, c.selects) == (8, 2, 1, 1)
    assert [len(f.blocks) for f in functions(BRANCHES)] == [6]


def test_a_loop_in_a_function_that_a_loop_calls_is_deeper() -> None:
    caller = "two:\n.LBB1_1:\n\tmovabsq\t$one, %rax\n\tcallq\t*%rax\n\tjne\t.LBB1_1\n\tretq\n"
    assert [loop.depth for loop in loops(SCALARS + caller)] == [2, 1]


def test_a_computed_jump_may_lead_to_every_place_of_its_table() -> None:
    text = """
one:
.LBB0_1:
	jmpq	*%rax
.LBB0_2:
	vaddps	%zmm1, %zmm2, %zmm2
	jmp	.LBB0_1
.LBB0_3:
	retq
	.section	.rodata
.LJTI0_0:
	.long	.LBB0_2-.LJTI0_0
	.long	.LBB0_3-.LJTI0_0
"""
    assert _only(text).counts.floats == 1


# --- sentences --------------------------------------------------------------------------


def test_a_vector_loop_is_called_vectorised() -> None:
    assert verdict(loops(VECTORS)[1], "avx512") == (
        "vectorised: 16 float32 per instruction (zmm), 2 FMAs, 1 other float operation per turn, "
        "1 spill, no call"
    )
    assert "4 float32 per instruction (neon)" in verdict(_only(NEON))
    narrow = verdict(loops(VECTORS.replace("zmm", "ymm"))[1], "avx512")
    assert "8 float32 per instruction (ymm; zmm would hold 16)" in narrow


def test_a_scalar_loop_is_called_scalar_with_a_reason() -> None:
    said = verdict(_only(SCALARS))
    assert said.startswith("scalar: one float32 at a time, because it calls expf on every turn; ")
    assert said.endswith("1 float operation per turn, no spill, 1 call")
    assert "depends on the data (2 branches)" in verdict(_only(BRANCHES))
    told = "unsafe dependent memory operations in loop. Use #pragma"
    assert "what an earlier turn has written" in verdict(_only(BRANCHES), "", [told])


def test_loops_without_float_arithmetic_are_described_too() -> None:
    integers = "one:\n.LBB0_1:\n\tvpaddd\t%ymm1, %ymm2, %ymm2\n\tjne\t.LBB0_1\n\tretq\n"
    assert verdict(_only(integers)).startswith("vectorised: 8 int32 per instruction (ymm)")
    copies = integers.replace("vpaddd\t%ymm1, %ymm2, %ymm2", "vmovups\t%ymm1, (%rax)")
    assert "moves data, a vector at a time; no load, 1 store" in verdict(_only(copies))
    empty = Inspected(Compiled("f", "avx2", "one:\n\tretq\n", "", None, []), [])
    assert empty.verdict.startswith("no loop")


def test_instructions_that_add_up_products_are_named() -> None:
    dots = "one:\n.LBB0_1:\n\tvpdpbusd\t%zmm1, %zmm2, %zmm3\n\tvpaddd\t%zmm1, %zmm3, %zmm4\n"
    assert verdict(_only(dots + "\tjne\t.LBB0_1\n\tretq\n")).startswith(
        "vectorised: 16 int32 per instruction (zmm), 2 integer operations "
        "(1 vpdpbusd of 4 products for each sum) per turn, no spill, no call"
    )


def test_what_numba_made_parallel_is_a_sentence() -> None:
    found = {"loops": 4, "fused": 1, "serial": 2, "hoisted": 3, "hoisted_allocations": 1}
    assert parallel_text(found) == (
        "parallel: 1 of 4 loops on all threads, 1 fused into another, 2 serial inside another, "
        "3 instructions hoisted out of a loop, 1 allocation among them"
    )


def test_a_vector_copy_for_numbers_side_by_side_does_not_count() -> None:
    plain = SCALARS.replace("callq	*%r12", "nop")
    vectors = plain.replace("vmulss	%xmm0", "vmulps	%zmm0").replace("one:", "two:")
    vectors = vectors.replace("LBB0", "LBB1")
    found = Inspected.of(Compiled("f", "avx512", plain + vectors, plain, None, []))
    assert found.verdict.startswith(
        "scalar: one float32 at a time, because the numbers that follow"
    )
    found = Inspected.of(Compiled("f", "avx512", plain + vectors, plain + vectors, None, []))
    assert found.verdict.startswith("vectorised: ")


def test_compiled_names_become_readable() -> None:
    assert readable("_ZN7minidnn7kernels3rng6philoxB2v1B4tag_Ex") == "rng.philox"
    assert readable("expf") == "expf"


def _loop(function: Any, *args: Any) -> Loop:
    compiled = numba.njit(function)
    compiled(*args)
    (assembly,) = compiled.inspect_asm().values()
    return hot_loops(assembly)[0]


def test_real_loops_are_told_apart() -> None:
    def scale(x: Any, y: Any) -> None:
        for i in range(x.size):
            y[i] = x[i] * np.float32(2) + np.float32(1)

    def running(x: Any, y: Any) -> None:
        last = np.float32(0)
        for i in range(x.size):
            last = last * np.float32(0.5) + x[i]
            y[i] = last

    x, y = np.ones(99, np.float32), np.ones(99, np.float32)
    assert verdict(_loop(scale, x, y)).startswith("vectorised: ")
    assert verdict(_loop(running, x, y)).startswith("scalar: one float32 at a time")


# --- the command ------------------------------------------------------------------------


def _inspected(*arguments: str, capsys: pytest.CaptureFixture[str]) -> Any:
    assert main(["inspect", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_prelus_fastest_rung_is_vectorised_and_its_naive_one_differs(
    capsys: pytest.CaptureFixture[str],
) -> None:
    fused = _inspected("prelu", "--asm", capsys=capsys)
    assert (fused["minidnn"], fused["kernel"], fused["rung"]) == (
        "inspect", "prelu.forward", "fused",
    )  # fmt: skip
    (function,) = fused["functions"]
    assert function["isa"] == simd.ISA
    assert function["verdict"] == fused["verdict"]
    assert fused["verdict"].startswith(("vectorised: ", "vectorised in part: "))
    assert function["parallel"]["loops"] == 1
    assert function["loops"][0]["assembly"]
    naive = _inspected("prelu.forward:naive", capsys=capsys)
    (plain,) = naive["functions"]
    assert plain["parallel"] is None  # vectorised too, and on one thread
    assert "assembly" not in plain["loops"][0]
    assert plain["loops"][0]["depth"] < function["loops"][0]["depth"]


def test_naive_products_read_their_columns_one_number_at_a_time(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["inspect", "gemm.nn:naive", "--size", "classroom"]) == 0
    assert "\nscalar: one float32 at a time" in capsys.readouterr().out


@pytest.mark.skipif(not ON_X86, reason="compiles for x86")
def test_another_instruction_set_changes_the_registers() -> None:
    def registers(isa: str) -> set[str]:
        (found,) = compiled_functions("prelu.forward", "naive", "classroom", isa)
        assert found.isa == isa
        total = sum((loop.counts.widths for loop in hot_loops(found.assembly)), Counts().widths)
        return set(total) - {"scalar"}

    assert registers("avx2") == {"ymm"}
    assert registers("portable") <= {"xmm"}


def test_numpy_rungs_have_nothing_to_look_at(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "prelu.backward:numpy", "--size", "classroom"]) == 0
    assert "nothing is compiled here" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["prelu.forwards"], "did you mean 'prelu.forward'"),
        (["prelu.forward:fusd"], "did you mean 'fused'"),
        (["prelu", "--size", "ful"], "did you mean 'full'"),
        (["prelu", "--isa", "avx3"], "did you mean 'avx2'"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", *arguments]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""
