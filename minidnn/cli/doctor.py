"""``minidnn doctor``: what is installed, what is missing, and how to get it."""

from __future__ import annotations

import argparse
import ctypes.util
import importlib
import platform
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

NAME = "doctor"
HELP = "show versions, CPU, threads and cache, what is missing and how to get it"

NEEDED = ("numpy", "numba", "llvmlite", "threadpoolctl", "safetensors", "rich", "platformdirs")
EXTRAS = {
    "matplotlib": ("plot", "learning curves and confusion matrices"),
    "pillow": ("images", "picture files: predict, --data folder:PATH"),
    "pytest": ("test", "the tests"),
    "torch": ("oracle", "comparisons with PyTorch"),
}
# Instruction sets that kernels have a use for, as LLVM names them.
FEATURES = ("sse4.2", "avx", "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512vl",
            "avx512vnni", "avxvnni", "neon", "dotprod", "i8mm")  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare nothing: the command looks around by itself."""


def run(args: argparse.Namespace) -> int:
    """Print one line per fact; exit code 1 if something needed is missing."""
    missing = [name for name in NEEDED if installed(name) is None]
    for title, text in _facts(missing):
        print(f"{title:<14}{text}")
    return 1 if missing else 0


def installed(package: str) -> str | None:
    """Return a package's version, None where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _facts(missing: list[str]) -> Iterator[tuple[str, str]]:
    from minidnn import __version__

    yield "minidnn", f"{__version__} in {Path(__file__).resolve().parent.parent}"
    yield "python", f"{platform.python_version()} {sys.executable}, {platform.platform()}"
    yield "packages", ", ".join(f"{name} {installed(name)}" for name in NEEDED if installed(name))
    for name in missing:
        yield "MISSING", f"{name}: python -m pip install {name}"
    if not missing:
        yield from _engine()
    for name, (extra, use) in EXTRAS.items():
        have = installed(name)
        how = have or f"not installed: python -m pip install 'minidnn[{extra}]'"
        yield f"[{extra}]", f"{name} {how} ({use})"


def _engine() -> Iterator[tuple[str, str]]:
    from minidnn.cli.session import cpus
    from minidnn.kernels.jit import target
    from minidnn.threads import max_threads, num_threads

    triple, name, features = target()
    have = features.split(",")
    yield "CPU", f"{name}, {cpus()} CPUs for this process; kernels compile for {triple}"
    yield "features", " ".join(f for f in FEATURES if f"+{f}" in have) or "none of note"
    yield "threads", f"{num_threads()} in use, {max_threads()} at most"
    yield "layer", _layer()
    yield "BLAS", _blas()
    yield "cache", _cache()


def _layer() -> str:
    """Name the threading layer, which Numba picks when the first kernel runs in parallel."""
    import numpy as np

    from minidnn.kernels import relu

    relu.forward(np.ones((1024, 64), np.float32))
    # Numba calls itself typed, but this function is not.
    layer = importlib.import_module("numba").threading_layer()
    if layer == "workqueue" and sys.platform.startswith("linux") and not _has_gomp():
        return (
            "workqueue (slow to start regions); omp is faster and needs the system's libgomp: "
            "apt-get install libgomp1, or your system's package of it"
        )
    return str(layer)


def _has_gomp() -> bool:
    return ctypes.util.find_library("gomp") is not None


def _blas() -> str:
    import numpy as np  # noqa: F401  # its BLAS is what threadpoolctl is asked about

    threadpoolctl = importlib.import_module("threadpoolctl")  # has no types
    found = [info for info in threadpoolctl.threadpool_info() if info["user_api"] == "blas"]
    return (
        ", ".join(
            f"{info['internal_api']} {info['version']} ({info.get('architecture', 'generic')})"
            for info in found
        )
        or "none that threadpoolctl knows: products may not be bit-exact over thread counts"
    )


def _cache() -> str:
    from minidnn.kernels.cache import CACHE_DIR, cache_is_writable, cache_root

    root = cache_root()
    files = [file for file in root.rglob("*") if file.is_file()] if root.is_dir() else []
    size = sum(file.stat().st_size for file in files) / 1e6
    now = sum(1 for file in files if CACHE_DIR in file.parents)
    writable = (
        ""
        if cache_is_writable()
        else (
            "; NOT writable: every process compiles again; set MINIDNN_CACHE_DIR to another folder"
        )
    )
    return f"{root}: {size:.1f} MB, {now} of {len(files)} files for these sources{writable}"
