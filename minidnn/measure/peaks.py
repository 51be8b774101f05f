"""What this machine can do at most: multiply-adds per second, and bytes per second by place.

Peaks are the best of several short runs, not their median: a roof is what was reached once.
They are kept in the user's cache folder, one file per CPU, affinity, threads and versions.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numba
import numpy as np

from minidnn import __version__
from minidnn.errors import InputError
from minidnn.kernels.cache import cache_root
from minidnn.kernels.jit import max_threads, num_threads, target
from minidnn.kernels.simd import CACHE_LINE, ISA, LANES
from minidnn.measure import peak_loops
from minidnn.measure.caches import MIB, Cache, caches
from minidnn.measure.machine import affinity, cpu_name, default_threads
from minidnn.measure.results import write
from minidnn.measure.timing import take_turns

# Numba calls itself typed but leaves these names out.
_numba: Any = numba

VERSION = 2  # of the kept files
ROUNDS, AT_LEAST = 7, 0.006
# Share of the CPUs' time that must be ours, and over how many seconds that is looked at.
CALM, CALM_SECONDS = 0.8, 0.1
# Starting a parallel region takes up to 24 us: calls last a hundred times as long.
STEPS = 1 << 17
PER_CALL = 128 * MIB
MEMORY = "memory"
LARGEST = 1024 * MIB  # of all threads' sets in memory together

# What else an x86 CPU can run, and how Numba is told to compile for it alone.
LESSER: dict[str, dict[str, str]] = {
    "avx2": {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx2,+fma"},
    "portable": {"NUMBA_CPU_NAME": "x86-64", "NUMBA_CPU_FEATURES": "+sse2"},
}
BELOW = {"avx512": ("avx2", "portable"), "avx2": ("portable",)}


class Level(NamedTuple):
    """A place that data comes from, as fast as its best loop.

    Attributes
    ----------
    name : str
        ``"L1"`` and so on, or ``"memory"``.
    capacity : float
        Bytes that all threads' caches of this level hold together; infinite for memory.
    working_set : int
        Bytes of each thread's own buffer, half of its cache.
    read, copy : float
        Bytes/s of all threads together; what is copied counts twice, read and written.
    """

    name: str
    capacity: float
    working_set: int
    read: float
    copy: float

    @property
    def bandwidth(self) -> float:
        """The better of the two."""
        return max(self.read, self.copy)

    @property
    def label(self) -> str:
        """Name and working set, such as ``L1 16 KiB``."""
        size = self.working_set
        text = f"{size // MIB} MiB" if size >= MIB else f"{size // 1024} KiB"
        return f"{self.name} {text}"


class Peaks(NamedTuple):
    """The machine's own limits.

    Attributes
    ----------
    flops : float
        float32 multiply-adds with the widest instructions, all threads; each counts 2 FLOP/s.
    bandwidth : float
        Bytes/s from memory.
    by_isa : dict
        Instruction set -> FLOP/s.
    by_set : dict
        Working set of each thread -> bytes/s.
    threads : int
        How many ran.
    levels : tuple of Level
        Where data can lie, the smallest place first.
    alone : Peaks, optional
        The same for one thread; None where `threads` is 1.
    """

    flops: float
    bandwidth: float
    by_isa: dict[str, float]
    by_set: dict[str, float]
    threads: int
    levels: tuple[Level, ...] = ()
    alone: Peaks | None = None

    def level(self, size: float) -> Level:
        """Return the smallest place that holds so many bytes."""
        for level in self.levels:
            if size <= level.capacity:
                return level
        return Level(MEMORY, math.inf, 0, self.bandwidth, 0)


# --- measuring --------------------------------------------------------------------------


def best(action: Callable[[], object]) -> float:
    """Return the seconds of the fastest call."""
    return min(take_turns({"": action}, rounds=ROUNDS, at_least=AT_LEAST)[""])


def fma_rates(threads: Sequence[int]) -> list[float]:
    """Return FLOP/s of this process's own instruction set, for each number of threads."""
    found = []
    for number in threads:
        rows = np.ones((number, peak_loops.ROWS, LANES), np.float32)
        rows += np.arange(peak_loops.ROWS, dtype=np.float32)[:, None]
        rows[:, -2] = 0.5  # the sums stay small, and never become denormal
        seconds = best(functools.partial(peak_loops.multiply_adds, rows, STEPS))
        found.append(peak_loops.flops(number, STEPS) / seconds)
    return found


def by_instruction_set(threads: Sequence[int]) -> dict[str, list[float]]:
    """Return what `fma_rates` finds, also for instruction sets below the CPU's own.

    Those are measured in processes of their own: what Numba compiles for is fixed at its import.
    """
    found = {ISA: fma_rates(threads)}
    for name in BELOW.get(ISA, ()):
        rates = _in_a_child(name, threads)
        if rates:
            found[name] = rates
    return found


def _in_a_child(name: str, threads: Sequence[int]) -> list[float]:
    """Run `fma_rates` in a process that compiles for less; empty, with a warning, if it fails."""
    root = Path(__file__).absolute().parents[2]
    path = os.pathsep.join([str(root), *filter(None, [os.environ.get("PYTHONPATH")])])
    settings = {
        **LESSER[name],
        "MINIDNN_SIMD": name,
        "PYTHONPATH": path,
        "NUMBA_NUM_THREADS": str(max_threads()),
    }
    done = subprocess.run(
        [sys.executable, "-m", __name__, *map(str, threads)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env={**os.environ, **settings},
        check=False,
    )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        warnings.warn(f"the peak of {name} could not be measured: {reason}", stacklevel=2)
        return []
    rates: list[float] = json.loads(done.stdout)
    return rates


def _aligned(threads: int, size: int) -> Any:
    """Return an array (threads, size / 4) on whole cache lines, each row filled by its thread."""
    raw = np.empty(threads * size + CACHE_LINE, np.uint8)
    start = -raw.ctypes.data % CACHE_LINE
    rows = raw[start : start + threads * size].view(np.float32).reshape(threads, -1)
    peak_loops.fill(rows, 1.0)
    return rows


def working_sets(found: Sequence[Cache], threads: int) -> list[tuple[str, float, int]]:
    """Return (name, bytes that all threads' caches hold, bytes of one thread's buffer).

    Half a cache, so that nothing else pushes the buffer out; for memory four times the largest
    cache. A level that gives a thread hardly more than the one below it is left out.
    """
    sets: list[tuple[str, float, int]] = []
    largest = 0
    for cache in found:
        capacity = cache.capacity(threads)
        if capacity >= 1.5 * largest:
            sets.append((f"L{cache.level}", capacity, _whole(capacity // (2 * threads))))
            largest = capacity
    everything = min(max(4 * largest, 64 * MIB), LARGEST)
    return [*sets, (MEMORY, math.inf, _whole(everything // threads))]


def _whole(size: int) -> int:
    """Round down to what the loops move at a time."""
    unit = 2 * peak_loops.BLOCK
    return max(size // unit, 1) * unit


def measure_level(name: str, capacity: float, size: int, threads: int) -> Level:
    """Return how fast threads read and copy buffers of a size, each its own."""
    rows, sums = _aligned(threads, size), np.zeros((threads, LANES), np.float32)
    times = max(1, PER_CALL // size)

    def rate(way: int) -> float:
        seconds = best(lambda: peak_loops.move(rows, sums, way, times))
        return peak_loops.moved(threads, size, times) / seconds

    copy = rate(peak_loops.COPY)
    if name == MEMORY:  # an ordinary store reads the line from memory first
        copy = max(copy, rate(peak_loops.STREAM))
    return Level(name, capacity, size, rate(peak_loops.READ), copy)


def assemble(
    threads: int, by_isa: Mapping[str, float], levels: Sequence[Level], alone: Peaks | None = None
) -> Peaks:
    """Return peaks from what was measured; the CPU's own instruction set comes first."""
    return Peaks(
        flops=max(by_isa.values()),
        bandwidth=levels[-1].bandwidth,
        by_isa=dict(by_isa),
        by_set={level.label: level.bandwidth for level in levels},
        threads=threads,
        levels=tuple(levels),
        alone=alone,
    )


def measure_peaks() -> Peaks:
    """Measure this machine, with as many threads as kernels use, and with one.

    Takes about 4 s, and some more where the loops are to be compiled first.

    Raises
    ------
    InputError
        If Numba's compiler is switched off.
    """
    if _numba.config.DISABLE_JIT:
        raise InputError("peaks are measured with compiled loops: unset NUMBA_DISABLE_JIT")
    counts = sorted({1, num_threads()})
    rates = by_instruction_set(counts)
    peaks: Peaks | None = None
    for i, threads in enumerate(counts):
        sets = working_sets(caches(affinity() or range(default_threads())), threads)
        levels = [measure_level(*place, threads) for place in sets]
        peaks = assemble(threads, {isa: found[i] for isa, found in rates.items()}, levels, peaks)
    assert peaks is not None
    return peaks


def undisturbed() -> bool:
    """Tell whether all our threads get a CPU each, and so whether peaks can be found now."""
    rows = np.ones((num_threads(), peak_loops.ROWS, LANES), np.float32)
    peak_loops.multiply_adds(rows, 1)  # compiled, and its threads started
    wall, cpu = time.perf_counter(), time.process_time()
    while time.perf_counter() - wall < CALM_SECONDS:
        peak_loops.multiply_adds(rows, STEPS)
    passed = time.perf_counter() - wall
    return time.process_time() - cpu > CALM * passed * len(rows)


# --- keeping ------------------------------------------------------------------------------


def surroundings() -> dict[str, Any]:
    """Return what peaks depend on."""
    return {
        "cpu": cpu_name(),
        "affinity": affinity(),
        "threads": num_threads(),
        "isa": ISA,
        "target": target()[1],
        "minidnn": __version__,
        "numba": _numba.__version__,
        "numpy": np.__version__,
        "version": VERSION,
    }


def kept_in() -> Path:
    """Return the file in which this machine's peaks are kept."""
    digest = hashlib.sha256(json.dumps(surroundings()).encode()).hexdigest()[:16]
    return cache_root() / f"peaks-{digest}.json"


def as_json(peaks: Peaks) -> dict[str, Any]:
    """Return peaks as JSON holds them."""
    levels = [{**level._asdict(), "capacity": _finite(level)} for level in peaks.levels]
    alone = as_json(peaks.alone) if peaks.alone else None
    return {**peaks._asdict(), "levels": levels, "alone": alone}


def _finite(level: Level) -> float | None:
    return level.capacity if math.isfinite(level.capacity) else None


def from_json(found: Any) -> Peaks:
    """Return the peaks that `as_json` wrote.

    Raises
    ------
    KeyError, TypeError, ValueError
        If it did not write this.
    """
    levels = tuple(
        Level(
            str(one["name"]),
            math.inf if one["capacity"] is None else _positive(one["capacity"]),
            int(_positive(one["working_set"])),
            _positive(one["read"]),
            _positive(one["copy"]),
        )
        for one in found["levels"]
    )
    return Peaks(
        flops=_positive(found["flops"]),
        bandwidth=_positive(found["bandwidth"]),
        by_isa={str(name): _positive(rate) for name, rate in dict(found["by_isa"]).items()},
        by_set={str(name): _positive(rate) for name, rate in dict(found["by_set"]).items()},
        threads=int(_positive(found["threads"])),
        levels=levels,
        alone=from_json(found["alone"]) if found["alone"] else None,
    )


def _positive(value: Any) -> float:
    number = float(value)
    if not (math.isfinite(number) and number > 0):
        raise ValueError(f"expected a positive number, got {value!r}")
    return number


def _read(path: Path) -> Peaks | None:
    """Return the peaks kept in a file; None where there are none that can be used."""
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        return from_json(kept["peaks"]) if kept["of"] == surroundings() else None
    except (OSError, KeyError, TypeError, ValueError):
        return None


def known_peaks(*, again: bool = False) -> Peaks:
    """Return this machine's peaks: the ones kept on disk, else measured now and kept.

    Parameters
    ----------
    again : bool
        Measure also where there are some: after others have kept the machine busy.

    Raises
    ------
    InputError
        If they must be measured and Numba's compiler is switched off.
    """
    path = kept_in()
    peaks = None if again else _read(path)
    if peaks is None:
        peaks = measure_peaks()
        if not undisturbed():
            warnings.warn(
                "other programs use the CPUs now: the peaks measured are too low, and are not kept",
                stacklevel=2,
            )
            return peaks
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write(path, {"of": surroundings(), "peaks": as_json(peaks)})
        except OSError as error:
            warnings.warn(f"peaks cannot be kept in {path.parent}: {error}", stacklevel=2)
    return peaks


if __name__ == "__main__":
    print(json.dumps(fma_rates([int(number) for number in sys.argv[1:]])))
