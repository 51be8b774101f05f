"""Loops in a compiler's assembly: where they are, how deep, and what one turn of each does.

>>> loops = hot_loops(assembly)
>>> loops[0].counts.fmas      # of the hottest
28
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from minidnn.measure.instructions import Instruction, keeps_frame, reader

LABEL = re.compile(r"(?P<name>\"[^\"]+\"|[^\s:#/]+):")
LOCAL = re.compile(r"\.L|L(BB|JTI|CPI|tmp|func)")
DATA = re.compile(r"\.(long|quad|word|xword|hword|short|byte)\b")
# What Python calls: they unpack arguments, and compute nothing.
WRAPPERS = ("cpython", "cfunc")
TURNS = 8  # that a loop is guessed to make; only used to tell hot from cold


@dataclass
class Counts:
    """What one turn of a loop does, in instructions; see `Instruction` for what the words mean.

    `widths` counts arithmetic on floats by register, `scalar` being one number at a time.
    """

    instructions: int = 0
    fmas: int = 0
    floats: int = 0
    selects: int = 0
    integers: int = 0
    shuffles: int = 0
    gathers: int = 0
    loads: int = 0
    stores: int = 0
    broadcasts: int = 0
    masked: int = 0
    calls: int = 0
    spills: int = 0
    branches: int = 0
    widths: Counter[str] = field(default_factory=Counter)
    elements: Counter[str] = field(default_factory=Counter)

    @classmethod
    def of(cls, instructions: Iterable[Instruction]) -> Counts:
        """Count instructions."""
        found = cls()
        plural = {"fma": "fmas", "float": "floats", "select": "selects", "integer": "integers"}
        plural |= {"shuffle": "shuffles", "gather": "gathers", "call": "calls"}
        plural |= {"branch": "branches", "jump": "branches"}
        for instruction in instructions:
            found.instructions += 1
            name = plural.get(instruction.kind)
            if name:
                setattr(found, name, getattr(found, name) + 1)
            found.loads += instruction.loads
            found.stores += instruction.stores
            found.broadcasts += instruction.broadcast
            found.masked += instruction.masked
            found.spills += instruction.spill
            if instruction.kind in ("fma", "float"):
                found.widths[instruction.register] += 1
                found.elements[instruction.element] += 1
        return found

    def as_dict(self) -> dict[str, Any]:
        """Return the counts as JSON holds them."""
        return {**vars(self), "widths": dict(self.widths), "elements": dict(self.elements)}


@dataclass
class Block:
    """Instructions that run from the first to the last, and the blocks that may follow."""

    label: str
    instructions: list[Instruction]
    follows: list[int] = field(default_factory=list)


@dataclass
class Loop:
    """A loop, without the loops inside it.

    Attributes
    ----------
    function : str
        Where it is, as the compiler names it.
    label : str
        Where a turn begins.
    depth : int
        Loops around a turn, itself included, callers' loops too.
    innermost : bool
        Whether there is no loop inside.
    instructions : list of Instruction
        Of all ways through a turn.
    callees : list of str
        The functions it calls; an empty text where the name is not in the code.
    """

    function: str
    label: str
    depth: int
    innermost: bool
    instructions: list[Instruction]
    callees: list[str]

    @cached_property
    def counts(self) -> Counts:
        """What one turn does."""
        return Counts.of(self.instructions)

    @property
    def work(self) -> float:
        """Numbers worked on in a turn: 2 per multiply-add; a little for what is only moved."""
        weights = {"fma": 2.0, "float": 1.0, "select": 0.5, "integer": 0.25}
        done = sum(weights.get(i.kind, 0) * i.lanes for i in self.instructions)
        return done + 0.01 * (self.counts.loads + self.counts.stores)

    @property
    def heat(self) -> float:
        """What loops are ranked by: masked accesses of memory are for the edges of arrays."""
        edge = any(i.masked and (i.loads or i.stores) for i in self.instructions)
        return self.work * float(TURNS**self.depth) / (2 if edge else 1)

    @property
    def packed(self) -> bool:
        """Whether an instruction computes with several floats."""
        return any(i.kind in ("fma", "float") and i.lanes > 1 for i in self.instructions)


@dataclass
class Function:
    """A function's blocks, in the order of the text."""

    name: str
    blocks: list[Block]

    @property
    def instructions(self) -> list[Instruction]:
        """Return all instructions."""
        return [i for block in self.blocks for i in block.instructions]


# --- reading ----------------------------------------------------------------------------


def functions(assembly: str) -> list[Function]:
    """Cut assembly into functions and blocks."""
    read = reader(assembly)
    bodies: list[tuple[str, list[str]]] = []
    tables: set[str] = set()  # places that a computed jump may go to
    for line in assembly.splitlines():
        label = LABEL.match(line)
        if label and not LOCAL.match(label["name"]):
            bodies.append((label["name"].strip('"'), []))
        elif DATA.match(line.strip()):
            tables.update(re.findall(r"\.?LBB\w+", line))
        elif bodies and line.strip():
            bodies[-1][1].append(line)
        elif line.strip() and (label or not line.strip().startswith((".", "#", "//", ";"))):
            bodies.append(("", [line]))  # a snippet without a name
    found = []
    for name, lines in bodies:
        frame = keeps_frame("\n".join(lines))
        blocks = [Block("", [])]
        for line in lines:
            label = LABEL.match(line)
            if label:
                blocks.append(Block(label["name"], []))
            elif not line.strip().startswith((".", "#", "//", ";")):
                instruction = read(line, frame)
                blocks[-1].instructions.append(instruction)
                if instruction.kind in ("jump", "branch", "end"):
                    blocks.append(Block("", []))
        if any(block.instructions for block in blocks):
            _connect(blocks, tables)
            found.append(Function(name, blocks))
    return found


def _connect(blocks: list[Block], tables: set[str]) -> None:
    at = {block.label: i for i, block in enumerate(blocks) if block.label}
    for i, block in enumerate(blocks):
        last = block.instructions[-1] if block.instructions else None
        if last is not None and last.kind in ("jump", "branch"):
            target = last.operands[-1] if last.operands else ""
            if target in at:
                block.follows.append(at[target])
            elif target.startswith("*") or last.name == "br":
                block.follows += sorted(at[name] for name in tables & at.keys())
        stops = last is not None and last.kind in ("jump", "end")
        if not stops and i + 1 < len(blocks):
            block.follows.append(i + 1)


# --- loops ------------------------------------------------------------------------------


def _dominators(blocks: list[Block]) -> list[set[int]]:
    """Return, by block, those that every way to it leads through; empty where no way leads."""
    order: list[int] = []
    seen, stack = {0}, [(0, iter(blocks[0].follows))]
    while stack:
        block, following = stack[-1]
        new = next((f for f in following if f not in seen), None)
        if new is None:
            order.append(block)
            stack.pop()
        else:
            seen.add(new)
            stack.append((new, iter(blocks[new].follows)))
    before: dict[int, list[int]] = {i: [] for i in seen}
    for i in seen:
        for f in blocks[i].follows:
            before[f].append(i)
    found: list[set[int]] = [set() for _ in blocks]
    found[0] = {0}
    changed = True
    while changed:
        changed = False
        for i in reversed(order[:-1]):
            ways = [found[b] for b in before[i] if found[b]]
            new_set = set.intersection(*ways) | {i}
            changed = changed or new_set != found[i]
            found[i] = new_set
    return found


def _bodies(blocks: list[Block]) -> dict[int, set[int]]:
    """Return the natural loops: first block -> all blocks."""
    dominators = _dominators(blocks)
    before: list[list[int]] = [[] for _ in blocks]
    for i, block in enumerate(blocks):
        for f in block.follows:
            before[f].append(i)
    found: dict[int, set[int]] = {}
    for i, block in enumerate(blocks):
        for head in block.follows:
            if head in dominators[i]:  # a jump back
                body = found.setdefault(head, {head})
                stack = [i]
                while stack:
                    b = stack.pop()
                    if b not in body and dominators[b]:
                        body.add(b)
                        stack += before[b]
    return found


def callee(instructions: list[Instruction], call: int) -> str:
    """Return the name of the function that the instruction at an index calls, else an empty text.

    Addresses may be put into a register first, anywhere above.
    """
    (target,) = instructions[call].operands or ("",)
    register = target.removeprefix("*")
    on_x86 = register.startswith("%")
    if not on_x86 and not re.match(r"x\d+$", register):
        return "" if "(" in register else register.removesuffix("@PLT")
    for instruction in reversed(instructions[:call]):
        if instruction.operands and register == instruction.operands[-1 if on_x86 else 0]:
            names = re.findall(r"[$:]([A-Za-z_][\w$.]*)", instruction.text)
            return names[-1] if names else ""
    return ""


def _depths(parts: list[Function], inner: dict[str, list[int]]) -> dict[str, int]:
    """Return how many loops of its callers a function runs in."""
    calls: list[tuple[str, str, int]] = []
    for part in parts:
        instructions = part.instructions
        depths = [
            d for b, d in zip(part.blocks, inner[part.name], strict=True) for _ in b.instructions
        ]
        for i, instruction in enumerate(instructions):
            if instruction.kind == "call":
                calls.append((part.name, callee(instructions, i), depths[i]))
    found = dict.fromkeys(inner, 0)
    for _ in parts:  # long enough for any chain of calls; a cycle ends too
        for caller, called, depth in calls:
            if called in found and called != caller:
                found[called] = min(max(found[called], found[caller] + depth), 12)
    return found


def loops(assembly: str) -> list[Loop]:
    """Return every loop, in the order of the text."""
    parts = functions(assembly)
    bodies = {part.name: _bodies(part.blocks) for part in parts}
    depths = {
        part.name: [
            sum(i in body for body in bodies[part.name].values()) for i in range(len(part.blocks))
        ]
        for part in parts
    }
    around = _depths(parts, depths)
    found = []
    for part in parts:
        every, first = part.instructions, 0
        spans = []  # of each block's instructions
        for block in part.blocks:
            spans.append(range(first, first + len(block.instructions)))
            first = spans[-1].stop
        for head, body in sorted(bodies[part.name].items()):
            inside = [b for h, b in bodies[part.name].items() if h != head and h in body]
            own = [i for b in sorted(body - set().union(*inside)) for i in spans[b]]
            found.append(
                Loop(
                    part.name,
                    part.blocks[head].label,
                    around[part.name] + depths[part.name][head],
                    not inside,
                    [every[i] for i in own],
                    [callee(every, i) for i in own if every[i].kind == "call"],
                )
            )
    return found


def hot_loops(assembly: str) -> list[Loop]:
    """Return the loops that compute or move anything, the hottest first.

    A guess from the text: each loop makes `TURNS` turns, and the loop in which most numbers
    are worked on is the hottest.
    """
    found = [
        loop
        for loop in loops(assembly)
        if loop.work and not any(word in loop.function for word in WRAPPERS)
    ]
    return sorted(found, key=lambda loop: -loop.heat)
