"""How kernels are compiled and run: compile flags and threads.

`cache` keeps machine code on disk, `linking` puts compiled functions together, `ahead`
compiles several at a time.

Kernels use four decorators: `kernel` compiles a function that runs on the calling
thread, `inner` one that only kernels call, `exact` one that rounds as it is written, and
`parallel` one whose `prange` loops run on the project's threads. All keep the plain Python
function as `.py_func`, to be stepped through in a debugger.

Exactness: no result may depend on the number of threads. So a `prange` runs over
*chunks*, whose number `chunks()` takes from the shape alone, and partial sums are
added up in chunk order afterwards.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Generic, ParamSpec, TypeVar, cast

import numba
from numba.np.ufunc.parallel import get_thread_id

from .cache import keep, kept
from .linking import Draft, ours

# Numba calls itself typed but leaves most of these names out.
_numba: Any = numba

P = ParamSpec("P")
R = TypeVar("R")

# `nnan` and `ninf` stay off: they let LLVM delete NaN checks, and a NaN that goes in
# must come out. Float sums need `reassoc` to use vector registers.
FASTMATH = frozenset({"reassoc", "contract", "nsz", "arcp", "afn"})
FLAGS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": set(FASTMATH)}

# Room for 64 workers; a fixed number, because results must not depend on the machine.
MAX_CHUNKS = 64

prange = numba.prange
# Which thread runs this turn of a prange loop: for scratch memory, never for results.
thread_id: Any = get_thread_id


# --- compiling ----------------------------------------------------------------------


def target() -> tuple[str, str, str]:
    """Return what Numba compiles for: target triple, CPU name, and its features as LLVM lists them.

    Not always this machine's own: `NUMBA_CPU_NAME` and `NUMBA_CPU_FEATURES` override it.
    """
    registry: Any = importlib.import_module("numba.core.registry")
    triple, name, features = registry.cpu_target.target_context.codegen().magic_tuple()
    return triple, name, features


# Every compiled function, so that a command can tell what was compiled and what came from disk.
DISPATCHERS: list[Any] = []


def _compile(function: Callable[..., Any], **flags: Any) -> Any:
    dispatcher = _numba.njit(**{**FLAGS, **flags})(function)
    if _numba.config.DISABLE_JIT:  # a plain Python function: nothing to cache
        return dispatcher
    DISPATCHERS.append(dispatcher)
    compiler = dispatcher._compiler
    compiler.compile = ours(compiler.compile)
    keep(dispatcher)
    return dispatcher


def kernel(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a function for the calling thread; other kernels may call it."""
    return cast("Callable[P, R]", _compile(function))


class Inner(Generic[P, R]):
    """A compiled function that has no machine code of its own, so Python cannot call it."""

    def __init__(self, function: Callable[P, R]) -> None:
        self.py_func = function
        self.__name__ = function.__name__
        self.__doc__ = function.__doc__
        self.dispatcher = _numba.njit(**FLAGS)(function)
        compiler = self.dispatcher._compiler
        compiler.compile = ours(compiler.compile, Draft)
        self._numba_type_ = self.dispatcher._numba_type_  # what Numba takes it for

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        raise TypeError(f"{self.__name__}: only compiled functions can call it; see its .py_func")


def inner(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a function that nobody but other kernels calls.

    It is optimised and turned into machine code where it is used, and nowhere else: a long chain
    of calls would otherwise be compiled once more for each of its links.
    """
    return function if _numba.config.DISABLE_JIT else Inner(function)


def exact(function: Callable[P, R]) -> Callable[P, R]:
    """Compile as `kernel` does, with no freedom to change how float32 numbers are rounded.

    No fused multiply-add, no other order: the bits are those of NumPy's own expressions. They
    stay so in whatever calls the function, for these flags belong to single instructions.
    """
    return cast("Callable[P, R]", _compile(function, fastmath=False))


def compiled(dispatcher: Any, types: tuple[Any, ...]) -> bool:
    """Tell whether a function needs no compiling for these argument types."""
    if _numba.config.DISABLE_JIT or types in dispatcher.overloads:
        return True
    return kept(dispatcher, types)


class _Instead(threading.local):
    """What a thread does with calls of parallel kernels, instead of running them."""

    note: Callable[[Any, tuple[Any, ...]], None] | None = None


_instead = _Instead()


@contextlib.contextmanager
def instead_of_running(note: Callable[[Any, tuple[Any, ...]], None]) -> Iterator[None]:
    """Hand each call of a `parallel` function in this thread to `note`: (function, arguments)."""
    previous, _instead.note = _instead.note, note
    try:
        yield
    finally:
        _instead.note = previous


class Parallel(Generic[P, R]):
    """A compiled function with `prange` loops, run on this project's number of threads."""

    def __init__(self, function: Callable[P, R]) -> None:
        self.py_func = function
        self.dispatcher = _compile(function, parallel=True)
        self.__name__ = function.__name__
        self.__doc__ = function.__doc__

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        if _instead.note is not None:
            bound = inspect.signature(self.py_func).bind(*args, **kwargs)
            bound.apply_defaults()
            return cast("R", _instead.note(self, bound.args))
        if _safe_layer and _numba.get_num_threads() == num_threads():
            return cast("R", self.dispatcher(*args, **kwargs))  # as in a region, 3 us sooner
        with region():
            return cast("R", self.dispatcher(*args, **kwargs))


def parallel(function: Callable[P, R]) -> Parallel[P, R]:
    """Compile a function whose `prange` loops run in parallel; call it from Python only."""
    return Parallel(function)


# --- threads ------------------------------------------------------------------------

_threads: int | None = None
_lock = threading.RLock()
_safe_layer: bool | None = None


def max_threads() -> int:
    """Return how many threads can be asked for (`NUMBA_NUM_THREADS`, else the CPUs given to us)."""
    return int(_numba.config.NUMBA_NUM_THREADS)


def num_threads() -> int:
    """Return how many threads our parallel regions and matrix products use."""
    return _threads if _threads is not None else max_threads()


def set_num_threads(n: int) -> None:
    """Set how many threads our own regions use; Numba's and BLAS's settings stay as they are.

    Raises
    ------
    ValueError
        If `n` is not between 1 and `max_threads()`.
    """
    global _threads
    if not 1 <= n <= max_threads():
        raise ValueError(
            f"threads: expected 1 to {max_threads()}, got {n}; for more, set "
            f"NUMBA_NUM_THREADS={max(n, 1)} in the environment before Python starts"
        )
    _threads = n


@contextlib.contextmanager
def _masked() -> Iterator[None]:
    wanted = num_threads()
    previous = _numba.get_num_threads()
    if previous == wanted:
        yield
        return
    _numba.set_num_threads(wanted)
    try:
        yield
    finally:
        _numba.set_num_threads(previous)


@contextlib.contextmanager
def region() -> Iterator[None]:
    """Hold one parallel region: our thread count, and a lock where the layer needs one.

    The `workqueue` layer aborts the process when two Python threads enter it.
    """
    global _safe_layer
    if _safe_layer:
        with _masked():
            yield
        return
    with _lock, _masked():
        yield
        if _safe_layer is None:
            with contextlib.suppress(ValueError):  # nothing ran in parallel yet
                _safe_layer = _numba.threading_layer() != "workqueue"


def chunks(n: int, at_least: int = 1) -> int:
    """Return into how many chunks to cut `n` items: from the shape alone, never from threads.

    Parameters
    ----------
    n : int
        Number of items (rows, images).
    at_least : int
        How many items make a chunk worth a thread.
    """
    return max(1, min(MAX_CHUNKS, n // max(1, at_least)))


# --- BLAS: one thread per call, many calls at once -------------------------------------
# OpenBLAS changes bits with its number of threads, so it always runs on one; parts of a
# product, cut by shape alone, run side by side on our own threads.

_pool: ThreadPoolExecutor | None = None
_pool_size = 0
_blas: Any = None


def _forget_pool() -> None:
    global _pool, _pool_size
    _pool, _pool_size = None, 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)


def _helpers(n: int) -> ThreadPoolExecutor:
    global _pool, _pool_size
    if _pool is None or _pool_size < n:
        _pool, _pool_size = ThreadPoolExecutor(n, thread_name_prefix="minidnn-blas"), n
    return _pool


def run_blas(tasks: list[Callable[[], object]]) -> None:
    """Run independent calls of BLAS, each on one thread, side by side on ours.

    The tasks must write to separate places; their order is free.
    """
    global _blas
    if _blas is None:
        threadpoolctl = importlib.import_module("threadpoolctl")  # has no types
        _blas = threadpoolctl.ThreadpoolController().select(user_api="blas")
    queue = iter(tasks)
    take = threading.Lock()

    def work() -> None:
        while True:
            with take:
                task = next(queue, None)
            if task is None:
                return
            task()

    with _lock, _blas.limit(limits=1):
        extra = min(num_threads(), len(tasks)) - 1
        futures = [_helpers(extra).submit(work) for _ in range(extra)] if extra > 0 else []
        work()
        for future in futures:
            future.result()
