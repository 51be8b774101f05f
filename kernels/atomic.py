"""Numbers in memory that several threads change: to share work, and to wait for each other.

What a thread wrote before `give` is seen by the one that finds the number with `wait_for`. Where
the system is no POSIX one, who waits keeps its core until the system takes it away.
"""

from __future__ import annotations

import os
from typing import Any

from llvmlite import ir
from numba import extending
from numba.core import types

from .jit import inner
from .simd import ISA, declare

_intrinsic: Any = extending.intrinsic
_types: Any = types

_I64 = ir.IntType(64)
SPINS = 1 << 16  # looks at a number, some 1 ms on x86, before other threads are let on this core


def _at(builder: Any, address: Any) -> Any:
    return builder.inttoptr(address, _I64.as_pointer())


def _take(typing_context: Any, counter: Any) -> Any:
    """Add 1 to the int64 at an address; return what it was. No two threads get the same."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        one = ir.Constant(_I64, 1)
        return builder.atomic_rmw("add", _at(builder, arguments[0]), one, "monotonic")

    return _types.int64(_types.int64), codegen


def _give(typing_context: Any, counter: Any, n: Any) -> Any:
    """Add n to the int64 at an address, after all that this thread has written."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.atomic_rmw("add", _at(builder, arguments[0]), arguments[1], "release")
        return context.get_dummy_value()

    return _types.void(_types.int64, _types.int64), codegen


def _seen(typing_context: Any, counter: Any) -> Any:
    """Return the int64 at an address, before all that this thread reads from now on."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load_atomic(_at(builder, arguments[0]), "acquire", 8, typ=_I64)

    return _types.int64(_types.int64), codegen


def _pause(typing_context: Any) -> Any:
    """Tell the CPU that this loop waits, where it has a word for that."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if ISA.startswith("avx"):
            builder.call(declare(builder.module, "llvm.x86.sse2.pause", ir.VoidType(), []), [])
        return context.get_dummy_value()

    return _types.void(), codegen


def _let_others(typing_context: Any) -> Any:
    """Let other threads run on this core, where the system has POSIX's word for that."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if os.name == "posix":
            builder.call(declare(builder.module, "sched_yield", ir.IntType(32), []), [])
        return context.get_dummy_value()

    return _types.void(), codegen


take: Any = _intrinsic(_take)
give: Any = _intrinsic(_give)
seen: Any = _intrinsic(_seen)
pause: Any = _intrinsic(_pause)
let_others: Any = _intrinsic(_let_others)


@inner
def wait_for(counter: int, n: int) -> None:
    """Wait until the int64 at an address is n."""
    spins = 0
    while seen(counter) != n:
        pause()
        spins += 1
        if spins > SPINS:
            let_others()
