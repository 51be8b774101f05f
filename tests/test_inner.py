"""`jit.inner`: functions that are compiled only where kernels call them."""

from __future__ import annotations

import os

import pytest

from minidnn.kernels.jit import inner, kernel

COMPILED = os.environ.get("NUMBA_DISABLE_JIT", "0") == "0"


@inner
def _next(n: int) -> int:
    """Return the number after n."""
    return n + 1


@kernel
def _twice_next(n: int) -> int:
    return 2 * _next(n)


def test_kernels_call_inner_functions() -> None:
    assert _twice_next(3) == 8


@pytest.mark.skipif(not COMPILED, reason="plain Python functions with NUMBA_DISABLE_JIT=1")
def test_python_cannot_call_an_inner_function_and_is_told_what_to_do() -> None:
    with pytest.raises(TypeError, match=r"_next: only compiled functions .* \.py_func"):
        _next(3)
    assert _next.py_func(3) == 4  # type: ignore[attr-defined]  # as of any compiled function
