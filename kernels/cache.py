"""The disk cache of compiled kernels: where it is, what makes an entry stale, who may write.

Numba's own cache does the work. What is added here: an edit of any kernel makes all entries
stale, a broken file costs a warning instead of a crash, and several processes may fill it.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import os
import pickle
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numba
import numpy as np
import platformdirs
from numba.core import caching

from .linking import ours

# Numba calls itself typed but leaves these names out.
_numba: Any = numba
_FunctionCache: Any = caching.FunctionCache

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


class CacheWarning(UserWarning):
    """Compiled kernels could not be read from, or written to, the disk cache."""


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
    settings = (_numba.__version__, np.__version__, cpu)
    digest.update(repr(settings).encode())
    return digest.hexdigest()[:16]


def cache_root() -> Path:
    """Return the folder under which compiled kernels are kept (`MINIDNN_CACHE_DIR` overrides)."""
    chosen = os.environ.get("MINIDNN_CACHE_DIR")
    return Path(chosen) if chosen else Path(platformdirs.user_cache_dir("minidnn")) / "kernels"


def cache_is_writable() -> bool:
    """Tell whether compiled kernels can be kept on disk."""
    place = cache_root()
    while not place.exists():
        place = place.parent
    return os.access(place, os.W_OK)


def shares_cache() -> bool:
    """Tell whether several processes can fill the cache at once."""
    return os.name == "posix" and cache_is_writable()


CACHE_DIR = cache_root() / _cache_key()
_warned = False


def _warn(what: str, error: BaseException) -> None:
    global _warned
    if not _warned:
        _warned = True
        warnings.warn(
            f"compiled kernels cannot be {what} {CACHE_DIR} ({error!r}); going on without, "
            "so each process compiles again. Set MINIDNN_CACHE_DIR to a writable folder",
            CacheWarning,
            stacklevel=3,
        )


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Keep other processes from writing: Numba reads a function's index, and writes it changed.

    Two at once could give two entries one name, and a later run another function's code.
    """
    if os.name != "posix":
        yield
        return
    CACHE_DIR.mkdir(parents=True, exist_ok=True)
    fcntl = importlib.import_module("fcntl")
    with (CACHE_DIR / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # let go when the file is closed
        yield


class _Cache:
    """Numba's cache of one function, minus its crashes: a broken file is compiled anew."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._numba: Any = _FunctionCache(function)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._numba, name)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            # `ours`: a function may be loaded while a draft, which is no place for it, is compiled.
            return ours(self._numba.load_overload)(sig, target_context)
        except UNREADABLE as error:
            _warn("read from", error)
            with contextlib.suppress(OSError):
                self._numba.flush()
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            with _alone():
                self._numba.save_overload(sig, data)
        except UNREADABLE as error:
            _warn("written to", error)

    def holds(self, types: tuple[Any, ...], target_context: Any) -> bool:
        key = self._numba._index_key(types, target_context.codegen())
        try:
            return key in self._numba._cache_file._load_index()
        except UNREADABLE:
            return False


def keep(dispatcher: Any) -> None:
    """Have what Numba compiles for a dispatcher kept on disk, under our folder."""
    previous = _numba.config.CACHE_DIR
    # Only our own functions go there: the setting is put back at once.
    _numba.config.CACHE_DIR = str(CACHE_DIR)
    try:
        dispatcher._cache = _Cache(dispatcher.py_func)
    except (RuntimeError, OSError) as error:  # Numba: "no locator available"
        _warn("kept in", error)
    finally:
        _numba.config.CACHE_DIR = previous


def kept(dispatcher: Any, types: tuple[Any, ...]) -> bool:
    """Tell whether the disk has machine code of a dispatcher for these argument types."""
    cache = dispatcher._cache
    return isinstance(cache, _Cache) and cache.holds(types, dispatcher.targetctx)
