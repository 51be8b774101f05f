"""Machine instructions, read from a compiler's text: x86 as AT&T writes it, and 64-bit ARM.

What a loop's speed hangs on: how many numbers an instruction works on, whether it multiplies
and adds at once, whether it goes to memory, and whether that memory is the stack.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

BITS = {"zmm": 512, "ymm": 256, "xmm": 128, "neon": 128, "half neon": 64, "sve": 128}
_ELEMENTS = {"s": "float32", "d": "float64", "h": "float16"}
_INTEGERS = {"b": "int8", "h": "int16", "w": "int16", "s": "int32", "d": "int32", "q": "int64"}
_SIZES = {name: int(re.sub(r"\D", "", name)) for name in [*_ELEMENTS.values(), *_INTEGERS.values()]}


class Instruction(NamedTuple):
    """One line of assembly, and what it is.

    Attributes
    ----------
    text : str
        The line without its comment.
    name : str
        The mnemonic.
    operands : tuple of str
    kind : str
        ``"fma"``, ``"float"`` (other arithmetic), ``"select"`` (comparing, choosing and bits of
        floats), ``"integer"`` (in vector registers), ``"shuffle"``, ``"gather"``, ``"call"``,
        ``"jump"`` (always taken), ``"branch"`` (sometimes taken), ``"end"`` or ``"other"``.
    register : str
        Of what it works on: a key of `BITS`, ``"scalar"``, or empty where no numbers are.
    element : str
        Such as ``"float32"``.
    loads, stores : int
        Accesses of memory other than the stack.
    broadcast, masked : bool
        One number goes to all places of a vector; some places are left out.
    spill : bool
        A vector register is moved to or from the stack: there were too few of them.
    """

    text: str
    name: str
    operands: tuple[str, ...]
    kind: str = "other"
    register: str = ""
    element: str = ""
    loads: int = 0
    stores: int = 0
    broadcast: bool = False
    masked: bool = False
    spill: bool = False

    @property
    def lanes(self) -> int:
        """How many numbers it works on: 1 for a scalar, 0 where there are none."""
        if self.register in BITS:
            return BITS[self.register] // _SIZES.get(self.element, 32)
        return 1 if self.register else 0


Reader = Callable[[str, bool], Instruction]


def reader(assembly: str) -> Reader:
    """Return what reads a line: `x86` where registers are written with %, else `arm`."""
    return x86 if re.search(r"^[ \t]+[a-z]\w*\s.*%[a-z]", assembly, re.MULTILINE) else arm


def keeps_frame(assembly: str) -> bool:
    """Tell whether a second register points at the stack in a function (x86)."""
    return re.search(r"movq\s+%rsp, %rbp", assembly) is not None


def _split(text: str) -> tuple[str, tuple[str, ...]]:
    """Return the mnemonic and the operands, cut at commas outside of brackets."""
    name, _, rest = text.partition(" ")
    operands = re.split(r",\s*(?![^(\[{]*[)\]}])", rest.strip())
    return name, tuple(o.strip() for o in operands if o.strip())


# --- x86 --------------------------------------------------------------------------------

_X86_FMA = re.compile(r"vfn?m(?:add|sub|addsub|subadd)\d+([ps])([sdh])$")
_X86_FLOAT = re.compile(
    r"v?(?:add|sub|mul|div|sqrt|rsqrt\d*|rcp\d*|max|min|hadd|hsub|addsub|rndscale|round|scalef"
    r"|reduce|range|getexp|getmant|dp)([ps])([sdh])$"
)
_X86_SELECT = re.compile(r"v?(?:cmp\w*|blendv?|blendm|andn?|or|xor|u?comi)([ps])([sdh])$")
_X86_SHUFFLE = re.compile(
    r"v?p?(?:perm|shuf|unpck|insert|insr|extract|extr|align|compress|expand|pack|movhl|movlh"
    r"|movs[lh]dup|movddup)"
)
_X86_MOVE = re.compile(r"v?(?:p?mov|p?maskmov)")


def x86(line: str, frame: bool = False) -> Instruction:
    """Read a line of x86 assembly as AT&T writes it, the destination last.

    Parameters
    ----------
    line : str
    frame : bool
        Whether %rbp points at the stack here; see `keeps_frame`.
    """
    text = " ".join(re.sub(r"#.*", "", line).split())
    name, operands = _split(text)
    found = Instruction(text, name, operands)
    if name.startswith("j"):
        return found._replace(kind="jump" if name.startswith("jmp") else "branch")
    if name.startswith("call"):
        return found._replace(kind="call")
    if re.match(r"ret|ud2|hlt|int3", name):
        return found._replace(kind="end")
    kind, register, element = _x86_kind(text, name, operands)
    return found._replace(
        kind=kind,
        register=register,
        element=element,
        broadcast="broadcast" in name or "{1to" in text,
        masked="{%k" in text or "maskmov" in name,
        **_x86_memory(text, name, operands, frame),
    )


def _x86_kind(text: str, name: str, operands: tuple[str, ...]) -> tuple[str, str, str]:
    widest = next((r for r in ("zmm", "ymm", "xmm") if f"%{r}" in text), "")
    for kind, pattern in (("fma", _X86_FMA), ("float", _X86_FLOAT), ("select", _X86_SELECT)):
        found = pattern.match(name)
        if found:
            if "xor" in name and len(set(operands)) == 1:
                return "other", "", ""  # how a register is set to zero
            packed = found[1] == "p"
            return kind, widest if packed else "scalar", _ELEMENTS[found[2]]
    if not widest:
        return "other", "", ""
    if "gather" in name or "scatter" in name:
        return "gather", widest, "float32"
    if _X86_SHUFFLE.match(name):
        return "shuffle", widest, "float32"
    if "broadcast" in name or _X86_MOVE.match(name):
        # A move under a mask chooses between two registers.
        chooses = "{%k" in text and "(" not in text and "{z}" not in text
        return ("select", widest, "float32") if chooses else ("other", "", "")
    if re.match(r"v?p", name):
        if re.match(r"v?pxor", name) and len(set(operands)) == 1:
            return "other", "", ""
        if "blend" in name:
            return "select", widest, "float32"
        return "integer", widest, _INTEGERS.get(name[-1], "int32")
    return "other", "", ""


def _x86_memory(text: str, name: str, operands: tuple[str, ...], frame: bool) -> dict[str, Any]:
    places = [o for o in operands if "(" in o]
    if not places or re.match(r"lea|nop|prefetch", name):
        return {}
    (place, *_) = places
    if "(%rsp)" in place or (frame and "(%rbp)" in place):
        # With an index it is an array of the function's own, and no spill.
        return {"spill": bool(re.search(r"%[xyz]mm", text))}
    if place != operands[-1] or re.match(r"cmp|test|v?u?comis", name):
        return {"loads": 1}
    reads_too = not re.match(r"v?p?mov|set|v?p?extr|v?p?maskmov|v?p?scatter|v?p?compress", name)
    return {"loads": int(reads_too), "stores": 1}


# --- ARM --------------------------------------------------------------------------------

_ARM_FMA = re.compile(r"fn?(?:madd|msub|mla|mls|mad|msb)$")
_ARM_FLOAT = re.compile(
    r"f(?:n?mul|add|sub|subr|div|sqrt|max|min|maxnm|minnm|mulx|abd|rint\w|scale|recp[es]|rsqrt[es]"
    r"|(?:add|max|min|maxnm|minnm)[pv]|adda)$"
)
_ARM_SELECT = re.compile(r"(?:f(?:cm\w+|ac\w+|csel|ccmpe?|neg|abs)|bsl|bit|bif|sel)$")
_ARM_SHUFFLE = re.compile(r"(?:zip|uzp|trn|ext|tbl|tbx|rev|ins|umov|smov|xtn|compact|splice)")
_ARM_MOVE = re.compile(r"(?:f?mov|mvni?|ld|st|dup|f?cvt|[su]?cvtf|fcvt)")


def arm(line: str, frame: bool = False) -> Instruction:
    """Read a line of 64-bit ARM assembly, the destination first; see `x86`."""
    text = " ".join(re.sub(r"(//|;).*", "", line).split())
    name, operands = _split(text)
    found = Instruction(text, name, operands)
    if re.match(
        r"(b\.\w+|bc\.\w+|cbn?z|tbn?z|b(eq|ne|lt|le|gt|ge|hi|hs|lo|ls|mi|pl|cc|cs))$", name
    ):
        return found._replace(kind="branch")
    if name in ("b", "br"):
        return found._replace(kind="jump")
    if name in ("bl", "blr"):
        return found._replace(kind="call")
    if name in ("ret", "brk", "udf"):
        return found._replace(kind="end")
    name, _, suffix = name.partition(".")  # Apple writes fadd.4s v0, v1, v2
    register, letter = _arm_register(suffix, operands)
    kind, element = _arm_kind(name, register, letter)
    vector = bool(operands) and re.match(r"\{? ?[qdsvz]\d", operands[0]) is not None
    return found._replace(
        kind=kind,
        register=register if element else "",
        element=element,
        broadcast=name in ("dup", "ld1r") or (name == "mov" and "[0]" in text and bool(letter)),
        masked=bool(re.search(r"\bp\d+/[mz]", text)) and register == "sve" and kind != "other",
        **_arm_memory(text, name, vector),
    )


def _arm_register(suffix: str, operands: tuple[str, ...]) -> tuple[str, str]:
    """Return the kind of register worked on, and the letter of its elements."""
    text = ", ".join(operands)
    found = re.match(r"(\d+)([bhsd])$", suffix) or re.search(r"\bv\d+\.(\d+)([bhsd])", text)
    if found:
        bits = int(found[1]) * {"b": 8, "h": 16, "s": 32, "d": 64}[found[2]]
        return ("neon" if bits == 128 else "half neon"), found[2]
    scalable = re.search(r"\bz\d+\.([bhsd])", text)
    if scalable:
        return "sve", scalable[1]
    scalar = re.match(r"([hsd])\d+$", operands[0] if operands else "")
    return ("scalar", scalar[1]) if scalar else ("", "")


def _arm_kind(name: str, register: str, letter: str) -> tuple[str, str]:
    for kind, pattern in (("fma", _ARM_FMA), ("float", _ARM_FLOAT), ("select", _ARM_SELECT)):
        if pattern.match(name) and letter:
            return kind, _ELEMENTS.get(letter, "float32")
    if register not in BITS or _ARM_MOVE.match(name):
        return "other", ""
    if _ARM_SHUFFLE.match(name):
        return "shuffle", _ELEMENTS.get(letter, "float32")
    return "integer", "int64" if letter == "d" else _INTEGERS[letter]


def _arm_memory(text: str, name: str, vector: bool) -> dict[str, Any]:
    if "[" not in text or not re.match(r"(ld|st)", name):
        return {}
    if re.search(r"\[(sp|x29)\b(?!, [xw]\d)", text):
        return {"spill": vector}
    each = 2 if re.match(r"(ldn?p|stn?p)", name) else 1
    return {"loads": each} if name.startswith("ld") else {"stores": each}
