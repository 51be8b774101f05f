"""Did it vectorise? A rung's hot loops in numbers, and in one sentence."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from minidnn.measure.assembly import Counts, Loop, hot_loops
from minidnn.measure.compiled import Compiled, compiled_functions
from minidnn.measure.instructions import BITS
from minidnn.measure.tables import Table

SHOWN = 5  # loops of one function
NOTHING = (
    "nothing is compiled here: Python, NumPy or BLAS does the work, in loops that were compiled "
    "long before"
)
# What LLVM's remarks mean, in the order in which they are worth telling.
MEANINGS = {
    "call instruction": "a function called on every turn works on one number at a time",
    "control flow": "which way a turn goes depends on the data",
    "unsafe dependent memory": "a turn may read what an earlier turn has written",
    "reorder memory": "the arrays might overlap: a turn may read what an earlier one has written",
    "reorder floating-point": "summing in another order would change the last bits",
    "identified as reduction": "a value goes from turn to turn in a way that is no plain sum",
    "array bounds": "the compiler cannot tell which part of an array the loop runs over",
    "number of loop iterations": "the number of turns is not known before the loop starts",
    "not beneficial": "the compiler expects no gain: a turn's numbers do not lie side by side",
}
FAR_APART = "the numbers that follow each other in the loop lie far apart in memory"
# Integer instructions that multiply and add up neighbours: how many products a sum gets from one.
DOTS = {"vpdpbusd": 4, "vpdpbusds": 4, "vpdpwssd": 2, "vpmaddwd": 2, "pmaddwd": 2}
WIDE = {"avx512": "zmm", "avx2": "ymm"}


@dataclass(frozen=True)
class Inspected:
    """One compiled function and its loops, the hottest first."""

    compiled: Compiled
    loops: Sequence[Loop]
    far_apart: bool = False

    @classmethod
    def of(cls, compiled: Compiled) -> Inspected:
        """Rank the loops of a function.

        A vectorised copy for numbers side by side does not count where, without such copies,
        the hottest loop is scalar or gathers its numbers from all over memory.
        """
        found, general = hot_loops(compiled.assembly), hot_loops(compiled.general)
        if not found or not general or not found[0].packed or found[0].counts.gathers:
            return cls(compiled, found)
        far_apart = not general[0].packed or bool(general[0].counts.gathers)
        if far_apart:
            found.sort(key=lambda loop: loop.packed)
        return cls(compiled, found, far_apart)

    @property
    def verdict(self) -> str:
        """Return whether it vectorised, as a sentence."""
        if not self.loops:
            return "no loop: it runs straight through"
        remarks = [FAR_APART] if self.far_apart else self.compiled.remarks
        return verdict(self.loops[0], self.compiled.isa, remarks)

    def table(self) -> Table:
        """Return the loops in numbers."""
        columns = [
            "hot loop first", "depth", "instr", "FMA", "float", "select", "integer", "by register",
            "loads", "stores", "broadcast", "shuffle", "masked", "calls", "spills", "branches",
        ]  # fmt: skip
        rows = []
        for loop in self.loops[:SHOWN]:
            c = loop.counts
            widths = ", ".join(f"{n} {name}" for name, n in c.widths.most_common())
            numbers = (c.fmas, c.floats, c.selects, c.integers)
            others = (c.loads + c.gathers, c.stores, c.broadcasts, c.shuffles, c.masked)
            last = (c.calls, c.spills, c.branches)
            first = [loop.label or "-", str(loop.depth), str(c.instructions)]
            rows.append([*first, *map(str, numbers), widths, *map(str, (*others, *last))])
        left = len(self.loops) - SHOWN
        more = f", {left} colder loops left out" if left > 0 else ""
        name = f"{self.compiled.name} for {self.compiled.isa}, per turn{more}"
        return Table(name, columns, rows)

    def texts(self) -> list[str]:
        """Return what the numbers mean, a line each."""
        told = [self.verdict]
        if self.compiled.parallel is not None:
            told.append(parallel_text(self.compiled.parallel))
        return told

    def as_dict(self, asm: bool = False) -> dict[str, Any]:
        """Return everything as JSON holds it; the loops' text only where asked for."""
        loops = []
        for loop in self.loops:
            found = {"function": loop.function, "label": loop.label, "depth": loop.depth}
            found |= {"innermost": loop.innermost, "counts": loop.counts.as_dict()}
            if asm:
                found["assembly"] = [i.text for i in loop.instructions]
            loops.append(found)
        return {
            "name": self.compiled.name,
            "isa": self.compiled.isa,
            "verdict": self.verdict,
            "parallel": self.compiled.parallel,
            "remarks": self.compiled.remarks,
            "loops": loops,
        }


def inspect(ladder: str, rung: str, size: str, isa: str | None = None) -> list[Inspected]:
    """Compile a rung and look at its functions, the hottest first; see `compiled_functions`."""
    found = [Inspected.of(one) for one in compiled_functions(ladder, rung, size, isa)]
    return sorted(found, key=lambda one: -one.loops[0].heat if one.loops else 0)


# --- sentences --------------------------------------------------------------------------


def _count(n: int, what: str) -> str:
    return f"{n or 'no'} {what}{'' if n <= 1 else 's'}"


def _widest(loop: Loop, kinds: tuple[str, ...]) -> tuple[str, str, int]:
    """Return the register and the element that most numbers are worked on in, and how many fit."""
    totals: dict[tuple[str, str, int], int] = {}
    for i in loop.instructions:
        if i.kind in kinds and i.register:
            key = i.register, i.element, i.lanes
            totals[key] = totals.get(key, 0) + i.lanes
    return max(totals, key=lambda key: totals[key])


def _burden(counts: Counts) -> str:
    """Return what else a turn does that costs time."""
    told = [_count(counts.spills, "spill"), _count(counts.calls, "call")]
    if counts.gathers:
        told.append(_count(counts.gathers, "gather"))
    return ", ".join(told)


def verdict(loop: Loop, isa: str = "", remarks: Sequence[str] = ()) -> str:
    """Say whether a loop is vectorised, and what a turn of it does.

    Parameters
    ----------
    loop : Loop
    isa : str
        What it was compiled for, to tell where wider registers were left unused.
    remarks : sequence of str
        Why the compiler did not vectorise a loop, if it did not.
    """
    c = loop.counts
    kinds = ("fma", "float") if c.fmas or c.floats else ("select",)
    scalar = sum(i.kind in kinds and i.register == "scalar" for i in loop.instructions)
    packed = sum(i.kind in kinds and i.register in BITS for i in loop.instructions)
    work = f"{_work(c)} per turn, {_burden(c)}"
    if not scalar and not packed:
        return _without_floats(loop)
    register, element, lanes = _widest(loop, kinds)
    if not packed:
        return f"scalar: one {element} at a time, {_because(loop, remarks)}; {work}"
    wide = WIDE.get(isa, register)
    room = BITS[wide] // BITS[register]
    fits = f"; {wide} would hold {lanes * room}" if room > 1 else ""
    if scalar:
        share = packed / (packed + scalar)
        if register == "scalar":
            return f"scalar for the most part: {scalar} of {scalar + packed} operations; {work}"
        return f"vectorised in part: {lanes} {element} in {share:.0%} of the operations; {work}"
    return f"vectorised: {lanes} {element} per instruction ({register}{fits}), {work}"


def _work(c: Counts) -> str:
    told = [_count(c.fmas, "FMA")] if c.fmas else []
    if c.floats:
        told.append(_count(c.floats, "other float operation" if c.fmas else "float operation"))
    if c.selects and not c.fmas:
        told.append(f"{c.selects} to compare or choose")
    return ", ".join(told)


def _without_floats(loop: Loop) -> str:
    c = loop.counts
    if c.integers:
        register, element, lanes = _widest(loop, ("integer",))
        done = _count(c.integers, "integer operation") + _dots(loop)
        return (
            f"vectorised: {lanes} {element} per instruction ({register}), {done} per turn, "
            f"{_burden(c)}; no float arithmetic"
        )
    moved = f"{_count(c.loads, 'load')}, {_count(c.stores, 'store')} per turn, {_burden(c)}"
    scalar = re.compile(r"v?mov(ss|sd|d|q)$")
    vectors = any(
        re.search(r"%[xyz]mm|\b[qv]\d", i.text) and not scalar.match(i.name)
        for i in loop.instructions
    )
    how = "a vector at a time" if vectors else "one number at a time"
    return f"no arithmetic in vector registers: it moves data, {how}; {moved}"


def _dots(loop: Loop) -> str:
    """Name the instructions that multiply and add up neighbours, if a loop has some."""
    counted = Counter(i.name for i in loop.instructions if i.name in DOTS)
    told = [f"{n} {name} of {DOTS[name]} products for each sum" for name, n in counted.items()]
    return f" ({', '.join(told)})" if told else ""


def _because(loop: Loop, remarks: Sequence[str]) -> str:
    """Return why a loop is scalar: what its code shows, else what the compiler says."""
    if loop.callees:
        return f"because it calls {readable(loop.callees[0]) or 'a function'} on every turn"
    said = [text for key, text in MEANINGS.items() if any(key in remark for remark in remarks)]
    others = [r for r in remarks if not any(key in r for key in MEANINGS)]
    if len(said) + len(others) == 1:
        return f"because {(said or others)[0]}"
    if loop.counts.branches > 1:
        return f"because {MEANINGS['control flow']} ({loop.counts.branches} branches)"
    if said or others:
        return f"and the compiler's reasons are: {'; or '.join([*said, *others])}"
    return "because its numbers depend on each other or do not lie side by side in memory"


def readable(name: str) -> str:
    """Return a compiled function's name as it is written: `_ZN3rng5floatB2v1E...` is rng.float."""
    if not name.startswith("_ZN"):
        return name
    rest, parts = name[3:], []
    while found := re.match(r"(\d+)", rest):
        size = int(found[1])
        part, rest = rest[found.end() :][:size], rest[found.end() + size :]
        parts.append(part)
        if rest.startswith("B"):  # a tag of Numba's, and what follows
            break
    return ".".join(parts[-2:])


def parallel_text(found: dict[str, int]) -> str:
    """Return Numba's parallel diagnostics as a sentence."""
    running = found["loops"] - found["fused"] - found["serial"]
    told = [f"parallel: {running} of {_count(found['loops'], 'loop')} on all threads"]
    if found["fused"]:
        told.append(f"{found['fused']} fused into another")
    if found["serial"]:
        told.append(f"{found['serial']} serial inside another")
    told.append(f"{_count(found['hoisted'], 'instruction')} hoisted out of a loop")
    if found["hoisted_allocations"]:
        told.append(f"{_count(found['hoisted_allocations'], 'allocation')} among them")
    return ", ".join(told)
