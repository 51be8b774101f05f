"""Every decision about Numba in one place: compile flags, disk cache, threads.

Kernels use two decorators: `kernel` compiles a function that runs on the calling
thread, `parallel` one whose `prange` loops run on the project's threads. Both
keep the plain Python function as `.py_func`, to be stepped through in a debugger.

Exactness: no result may depend on the number of threads. So a `prange` runs over
*chunks*, whose number `chunks()` takes from the shape alone, and partial sums are
added up in chunk order afterwards.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import os
import pickle
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Generic, ParamSpec, TypeVar, cast

import numba
import numpy as np
import platformdirs
from numba.core import caching
from numba.np.ufunc.parallel import get_thread_id

# Numba calls itself typed but leaves most of these names out.
_numba: Any = numba
_FunctionCache: Any = caching.FunctionCache

P = ParamSpec("P")
R = TypeVar("R")

# `nnan` and `ninf` stay off: they let LLVM delete NaN checks, and a NaN that goes in
# must come out. Float sums need `reassoc` to use vector registers.
FASTMATH = frozenset({"reassoc", "contract", "nsz", "arcp", "afn"})
FLAGS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": set(FASTMATH)}

# Room for 64 workers; a fixed number, because results must not depend on the machine.
MAX_CHUNKS = 64

# What unpickling a truncated or foreign cache file may raise.
UNREADABLE = (
    pickle.UnpicklingError,
    EOFError,
    AttributeError,
    ImportError,
    IndexError,
    KeyError,
    TypeError,
    ValueError,
    OSError,
)

prange = numba.prange
# Which thread runs this turn of a prange loop: for scratch memory, never for results.
thread_id: Any = get_thread_id


class CacheWarning(UserWarning):
    """Compiled kernels could not be read from, or written to, the disk cache."""


# --- disk cache ---------------------------------------------------------------------


def _cache_key() -> str:
    """Hash every kernel source with the versions and settings that shape machine code.

    Numba looks at the file that defines a function only: after an edit of a function that
    is inlined elsewhere it would answer with old code. A new directory cannot be stale.
    Numba itself adds the CPU features it compiles for to the key of each entry.
    """
    digest = hashlib.sha256()
    for source in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(source.name.encode() + b"\0" + source.read_bytes())
    names = ("NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES", "MINIDNN_SIMD")
    cpu = [os.environ.get(name) for name in names]
    settings = (_numba.__version__, np.__version__, sorted(FASTMATH), cpu)
    digest.update(repr(settings).encode())
    return digest.hexdigest()[:16]


def cache_root() -> Path:
    """Return the folder under which compiled kernels are kept (`MINIDNN_CACHE_DIR` overrides)."""
    chosen = os.environ.get("MINIDNN_CACHE_DIR")
    return Path(chosen) if chosen else Path(platformdirs.user_cache_dir("minidnn")) / "kernels"


def target() -> tuple[str, str, str]:
    """Return what Numba compiles for: target triple, CPU name, and its features as LLVM lists them.

    Not always this machine's own: `NUMBA_CPU_NAME` and `NUMBA_CPU_FEATURES` override it.
    """
    registry: Any = importlib.import_module("numba.core.registry")
    triple, name, features = registry.cpu_target.target_context.codegen().magic_tuple()
    return triple, name, features


CACHE_DIR = cache_root() / _cache_key()
_warned = False


def _warn_cache(what: str, error: BaseException) -> None:
    global _warned
    if not _warned:
        _warned = True
        warnings.warn(
            f"compiled kernels cannot be {what} {CACHE_DIR} ({error!r}); going on without, "
            "so each process compiles again. Set MINIDNN_CACHE_DIR to a writable folder",
            CacheWarning,
            stacklevel=3,
        )


class _Cache:
    """Numba's cache of one function, minus its crashes: a broken file is compiled anew."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._numba: Any = _FunctionCache(function)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._numba, name)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            return self._numba.load_overload(sig, target_context)
        except UNREADABLE as error:
            _warn_cache("read from", error)
            with contextlib.suppress(OSError):
                self._numba.flush()
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            self._numba.save_overload(sig, data)
        except UNREADABLE as error:
            _warn_cache("written to", error)


# Every compiled function, so that a command can tell what was compiled and what came from disk.
DISPATCHERS: list[Any] = []


def _compile(function: Callable[..., Any], **flags: Any) -> Any:
    dispatcher = _numba.njit(**FLAGS, **flags)(function)
    if _numba.config.DISABLE_JIT:  # a plain Python function: nothing to cache
        return dispatcher
    DISPATCHERS.append(dispatcher)
    previous = _numba.config.CACHE_DIR
    # Only our own functions go there: the setting is put back at once.
    _numba.config.CACHE_DIR = str(CACHE_DIR)
    try:
        dispatcher._cache = _Cache(function)
    except (RuntimeError, OSError) as error:  # Numba: "no locator available"
        _warn_cache("kept in", error)
    finally:
        _numba.config.CACHE_DIR = previous
    return dispatcher


def kernel(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a function for the calling thread; other kernels may call it."""
    return cast("Callable[P, R]", _compile(function))


class Parallel(Generic[P, R]):
    """A compiled function with `prange` loops, run on this project's number of threads."""

    def __init__(self, function: Callable[P, R]) -> None:
        self.py_func = function
        self.dispatcher = _compile(function, parallel=True)
        self.__name__ = function.__name__
        self.__doc__ = function.__doc__

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
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
