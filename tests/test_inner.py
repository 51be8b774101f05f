"""`jit.inner`: functions that are compiled only where kernels call them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from minidnn.kernels.jit import inner, kernel
from tests.processes import python

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


CHAIN = """
from minidnn.kernels.jit import inner, kernel

@kernel
def leaf(n):
    return n + 1

@inner
def middle(n):
    return 2 * leaf(n)

@kernel
def top(n):
    return middle(n) - 1
"""


@pytest.mark.skipif(not COMPILED, reason="nothing is cached with NUMBA_DISABLE_JIT=1")
def test_an_inner_function_may_call_what_comes_from_the_disk_cache(tmp_path: Path) -> None:
    (tmp_path / "chain.py").write_text(CHAIN)
    settings = {"MINIDNN_CACHE_DIR": str(tmp_path / "cache")}
    begin = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import chain; "
    assert python(begin + "print(chain.leaf(3))", env=settings) == "4\n"
    look = "; print(sum(chain.leaf.stats.cache_hits.values()))"
    assert python(begin + "print(chain.top(3))" + look, env=settings) == "7\n1\n"
