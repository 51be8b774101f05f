"""What a rung runs after compiling: its functions' assembly, and what the compiler said.

Code from the disk cache cannot be looked into, and the code of this process may come from
there. So other processes (``python -m minidnn.measure.compiled``) do it: a first one notes
which compiled functions a rung calls, a second one compiles them afresh, for this CPU or for
another one of its family.
"""

from __future__ import annotations

import importlib
import os
import pickle
import platform
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from minidnn.errors import ConfigError, InputError
from minidnn.kernels import jit
from minidnn.kernels.ladder import load_all
from minidnn.kernels.simd import ISA
from minidnn.measure.shapes import SIZES
from minidnn.measure.workloads import workloads

# What to tell Numba so that it compiles for less, or more, than the host has.
TARGETS = {
    "avx512": {
        "NUMBA_CPU_NAME": "skylake-avx512",
        "NUMBA_CPU_FEATURES": "+avx512f,+avx512dq,+avx512vl,+avx512bw,+avx2,+fma",
    },
    "avx2": {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx2,+fma"},
    "portable": {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""},
}
X86 = ("x86_64", "amd64")
LONGEST = 120.0  # seconds for the loops that run: the serial ones, and Python's own
REMARK = "loop not vectorized: "
REMARKS = "--pass-remarks-analysis=loop-vectorize"
# LLVM compiles a loop over numbers that lie far apart once more, for the case that they lie side
# by side after all: as if an array had one column. That copy is vectorised, and hardly ever runs.
NO_SUCH_COPIES = "--enable-mem-access-versioning=false"
DONE = "already been vectorized"  # said of a loop that a pass before has dealt with
NEXT = "minidnn: next function"  # between the remarks on two functions


class Name(NamedTuple):
    """A compiled function, by where it is written and the types of its arguments.

    `number` tells apart those that a function of Python makes under one name.
    """

    module: str
    function: str
    number: int
    types: tuple[Any, ...]

    def dispatcher(self) -> Any:
        """Return Numba's side of the function."""
        return _named(self.module, self.function)[self.number]


class Compiled(NamedTuple):
    """One compiled function.

    Attributes
    ----------
    name : str
        Such as ``prelu.fused_forward_loop``.
    isa : str
        What it was compiled for, a key of `minidnn.kernels.simd.WIDTHS`.
    assembly : str
    general : str
        The assembly where LLVM adds no copy of a loop for numbers that lie side by side.
    parallel : dict or None
        Counts of Numba's parallel loops; None where the function is serial.
    remarks : list of str
        Why LLVM did not vectorise some loop, as it says it; of all loops, not of the hottest.
    """

    name: str
    isa: str
    assembly: str
    general: str
    parallel: dict[str, int] | None
    remarks: list[str]


def compiled_functions(ladder: str, rung: str, size: str, isa: str | None = None) -> list[Compiled]:
    """Return the compiled functions that a rung calls, in the order of their first call.

    Parameters
    ----------
    ladder, rung : str
    size : {"classroom", "stages", "full"}
        The layers it is called for, with one picture each.
    isa : {"avx512", "avx2", "portable"}, optional
        Compile for these instructions, which this CPU need not have.

    Returns
    -------
    list of Compiled
        Empty where nothing is compiled.

    Raises
    ------
    InputError
        If this CPU's family does not have these instructions, or the rung runs for too long.
    """
    if isa in ("avx512", "avx2") and platform.machine().lower() not in X86:
        raise ConfigError(f"--isa: {isa} is for x86, and Numba compiles for {platform.machine()}")
    names, _ = _child("called", (ladder, rung, size), {})
    if not names:
        return []
    settings = TARGETS[isa] if isa else {}
    options = ([REMARKS], [REMARKS, NO_SUCH_COPIES])
    with ThreadPoolExecutor() as pool:  # of processes, really
        (found, said), (general, _) = pool.map(
            lambda chosen: _child("compile", (names, chosen), settings), options
        )
    told = [_remarks(part) for part in said.split(NEXT)]
    return [
        Compiled(name, target, assembly, other[2], parallel, remarks)
        for (name, target, assembly, parallel), other, remarks in zip(
            found, general, told, strict=False
        )
    ]


def _remarks(said: str) -> list[str]:
    lines = [line.partition(REMARK)[2].strip() for line in said.splitlines() if REMARK in line]
    return list(dict.fromkeys(line for line in lines if DONE not in line))


def _child(step: str, request: Any, settings: dict[str, str]) -> tuple[Any, str]:
    """Run one step in another process; return its result and what the compiler said."""
    root = Path(__file__).absolute().parents[__name__.count(".")]
    path = os.pathsep.join([str(root), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, **settings}
    environment.pop("NUMBA_DISABLE_JIT", None)
    if settings:
        environment.pop("MINIDNN_SIMD", None)
    try:
        done = subprocess.run(
            [sys.executable, "-m", __name__, step],
            input=pickle.dumps(request),
            env=environment,
            capture_output=True,
            timeout=LONGEST if step == "called" else None,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise InputError(
            f"expected the rung to end within {LONGEST:.0f} s at this size, and it did not; "
            "try --size classroom"
        ) from None
    said = done.stderr.decode(errors="replace")
    if done.returncode:
        raise RuntimeError(f"{__name__} {step} failed: {said}")
    return pickle.loads(done.stdout), said


# --- in the other processes --------------------------------------------------------------


def _named(module: str, function: str) -> list[Any]:
    return [
        dispatcher
        for dispatcher in jit.DISPATCHERS
        if (dispatcher.py_func.__module__, dispatcher.py_func.__qualname__) == (module, function)
    ]


def _name(dispatcher: Any, types: tuple[Any, ...]) -> Name:
    function = dispatcher.py_func
    module, name = function.__module__, function.__qualname__
    numbers = [d is dispatcher for d in _named(module, name)]
    return Name(module, name, numbers.index(True), types)


def _called(ladder: str, rung: str, size: str) -> list[Name]:
    """Call a rung and note the compiled functions that Python calls; the parallel ones do not run.

    Callees of compiled functions are part of these, and not listed.
    """
    function = load_all()[ladder][rung]
    found: dict[Name, None] = {}

    def watch(dispatcher: Any) -> None:
        compile_for = dispatcher._compile_for_args  # Numba calls it where a type is new to it

        def noting(*args: Any, **kwargs: Any) -> Any:
            compiled = compile_for(*args, **kwargs)
            found.setdefault(_name(dispatcher, list(dispatcher.overloads)[-1]))
            return compiled

        dispatcher._compile_for_args = noting

    for dispatcher in jit.DISPATCHERS:
        watch(dispatcher)

    def note(parallel: Any, args: tuple[Any, ...]) -> None:
        types = tuple(parallel.dispatcher.typeof_pyval(arg) for arg in args)
        found.setdefault(_name(parallel.dispatcher, types))

    with jit.instead_of_running(note):
        for work in workloads(SIZES[size], batch=1).get(ladder, []):
            function(*work.drawn(), **work.settings)
    return list(found)


def _compile(names: list[Name], options: list[str]) -> list[tuple[Any, ...]]:
    """Compile functions without the disk cache; the compiler's remarks go to standard error."""
    binding: Any = importlib.import_module("llvmlite.binding")  # these two have no types
    caching: Any = importlib.import_module("numba.core.caching")
    for option in options:
        binding.set_option("minidnn", option)
    load_all()
    for dispatcher in jit.DISPATCHERS:
        dispatcher._cache = caching.NullCache()
    found = []
    for name in names:
        dispatcher = name.dispatcher()
        dispatcher.compile(name.types)
        overload = dispatcher.overloads[name.types]
        short = f"{name.module.rpartition('kernels.')[2]}.{name.function}"
        parallel = _parallel(overload.metadata.get("parfor_diagnostics"))
        found.append((short, ISA, overload.library.get_asm_str(), parallel))
        os.write(2, f"\n{NEXT}\n".encode())
    return found


def _parallel(told: Any) -> dict[str, int] | None:
    """Count what Numba's parallel diagnostics tell.

    Returns
    -------
    dict or None
        ``loops`` written as parallel (`prange`, whole-array expressions), those ``fused`` into
        another one, those ``serial`` because they are inside of another one, instructions and
        allocations ``hoisted`` out of a loop.
    """
    if told is None or not told.has_setup or not told.initial_parfors:
        return None
    hoisted = [len(data.get("hoisted") or []) for data in told.hoist_info.values()]
    return {
        "loops": len(told.initial_parfors),
        "fused": sum(map(len, told.fusion_info.values())),
        "serial": sum(map(len, told.nested_fusion_info.values())),
        "hoisted": sum(hoisted),
        "hoisted_allocations": len(told.hoisted_allocations()),
    }


def main() -> None:
    """Do one step: its request on standard input, its result on standard output."""
    result_to = os.dup(1)
    os.dup2(2, 1)  # what anybody prints is no part of the result
    request = pickle.load(sys.stdin.buffer)
    result = _called(*request) if sys.argv[1] == "called" else _compile(*request)
    with os.fdopen(result_to, "wb") as file:
        pickle.dump(result, file)


if __name__ == "__main__":
    # Once more under its own name: pickle writes where a class is from.
    from minidnn.measure.compiled import main as named_main

    named_main()
