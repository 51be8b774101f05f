"""A counter that several threads take numbers from."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import extending
from numba.core import types

_intrinsic: Any = extending.intrinsic
_types: Any = types

_I64 = ir.IntType(64)


def _take(typing_context: Any, counter: Any) -> Any:
    """Add 1 to the int64 at an address; return what it was. No two threads get the same."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = builder.inttoptr(arguments[0], _I64.as_pointer())
        return builder.atomic_rmw("add", pointer, ir.Constant(_I64, 1), "monotonic")

    return _types.int64(_types.int64), codegen


take: Any = _intrinsic(_take)
