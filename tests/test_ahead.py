"""Kernels are compiled ahead on several cores, share one cache, and give the same bits."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import numba
import numpy as np
import pytest

import minidnn
from minidnn.kernels import prelu, relu
from minidnn.kernels.ahead import Call, compile_all, listed, missing
from minidnn.kernels.jit import DISPATCHERS
from minidnn.kernels.ladder import load_all
from tests.cases import load_cases
from tests.processes import ROOT, python

# Six kernels, without a network: quick to compile.
STEP = """
import hashlib
import numpy as np
from minidnn.kernels import prelu, relu, sgd
from minidnn.kernels.ahead import compile_all, listed, missing

rng = np.random.default_rng(0)
x, dy, velocity = (rng.normal(size=(5, 7, 7, 19)).astype("f") for _ in range(3))
slope = np.full(19, 0.25, "f")

def step():
    y = prelu.forward(x, slope) + relu.forward(x) + relu.forward(x.astype("d")).astype("f")
    dx = prelu.backward(dy, x, slope)[0] + relu.backward(dy, y)
    flat = x.reshape(-1)
    sgd.step(flat, dx.reshape(-1), velocity.reshape(-1), lr=0.1, momentum=0.9, nesterov=True,
             weight_decay=1e-3)
    return hashlib.md5(y.tobytes() + x.tobytes()).hexdigest()
"""
AHEAD = f"""{STEP}
with listed() as calls:
    step()
seconds = []
compile_all(calls, processes=2, tell=lambda call, s: seconds.append(s))
assert not missing(calls), missing(calls)
from minidnn.cli.compiling import Watch
with Watch() as watch:
    bits = step()
print(len(calls), len(seconds), len(watch.done), bits)
"""


def test_listing_notes_each_parallel_kernel_once_and_runs_none() -> None:
    x = np.linspace(-1, 1, 30, dtype=np.float32).reshape(1, 3, 5, 2)
    before = relu.forward(x)
    with listed() as calls:
        for _ in range(2):
            assert relu.forward(x) is not None
            relu.forward(x[:, :1])
            relu.forward(x.astype(np.float64))
    assert {call.module.rpartition(".")[2] for call in calls} == {"relu"}
    assert len(calls) == len(set(calls)) == 2  # one per dtype, none per shape
    np.testing.assert_array_equal(relu.forward(x), before)


def test_what_8_bit_ladders_run_is_listed_and_compiles_by_its_types() -> None:
    names = [n for n in load_all() if n.startswith("int8_") or "quantize" in n]
    given = [(load_all()[n], load_cases()[n][0]) for n in names]

    def step() -> None:
        for ladder, case in given:
            ladder(*case.args(np.random.default_rng(0)), **case.settings)

    with listed() as calls:
        step()
    modules = {call.module.rpartition(".")[2] for call in calls}
    products = {"int8_pointwise"}  # are those of int8_gemm
    assert modules == {n.partition(".")[0] for n in names} - products
    step()
    assert not missing(calls)


def test_listing_in_one_thread_leaves_the_others_running() -> None:
    x = np.linspace(-1, 1, 30, dtype=np.float32).reshape(1, 3, 5, 2)
    results: list[object] = []
    with listed() as calls:
        thread = threading.Thread(target=lambda: results.append(relu.forward(x)))
        thread.start()
        thread.join()
    assert not calls
    np.testing.assert_array_equal(np.asarray(results[0]), np.maximum(x, 0))


def test_helpers_fill_the_cache_and_the_caller_compiles_nothing(tmp_path: Path) -> None:
    env = {"MINIDNN_CACHE_DIR": str(tmp_path), "NUMBA_NUM_THREADS": "2"}
    listed_calls, helped, compiled, ahead = python(AHEAD, env=env).split()
    assert int(listed_calls) == int(helped) >= 6
    assert compiled == "0"
    again = python(AHEAD, env=env).split()
    assert again == [listed_calls, "0", "0", ahead], "the second time nothing is compiled"


def test_helpers_take_the_package_from_where_the_caller_has_it(tmp_path: Path) -> None:
    script, elsewhere = tmp_path / "scripts" / "step.py", tmp_path / "work"
    for folder in (script.parent, elsewhere / "minidnn"):
        folder.mkdir(parents=True)
    script.write_text(AHEAD, encoding="utf-8")
    decoy = "raise ImportError('the copy in the working directory')"
    (elsewhere / "minidnn" / "__init__.py").write_text(decoy, encoding="utf-8")
    env = {
        **{k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
        "MINIDNN_CACHE_DIR": str(tmp_path / "cache"),
        "NUMBA_NUM_THREADS": "2",
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(
        [sys.executable, script], cwd=elsewhere, env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout.split()[2] == "0", "the caller compiled again what helpers had compiled"


def test_the_run_that_compiles_gives_the_bits_of_the_run_that_loads(tmp_path: Path) -> None:
    env = {"MINIDNN_CACHE_DIR": str(tmp_path)}
    assert python(f"{STEP}\nprint(step())", env=env) == python(f"{STEP}\nprint(step())", env=env)


def _open_functions(dispatcher: object) -> list[str]:
    """Return the functions of compiled code that another library's could take the place of."""
    return [
        function.name
        for overload in dispatcher.overloads.values()  # type: ignore[attr-defined]  # Numba's own
        for function in overload.library._final_module.functions
        if not function.is_declaration and function.linkage.name in ("linkonce_odr", "weak_odr")
    ]


def test_no_function_of_ours_can_be_replaced_by_another_librarys_copy() -> None:
    prelu.forward(np.ones((2, 3, 3, 5), np.float32), np.ones(5, np.float32))
    assert not [name for dispatcher in DISPATCHERS for name in _open_functions(dispatcher)]


def test_numbas_own_linking_is_found_out() -> None:
    @numba.njit(parallel=True)
    def plain(x: object) -> None:
        for i in numba.prange(x.size):  # type: ignore[attr-defined]  # without types
            x[i] += 1  # type: ignore[index]  # an array, to Numba

    plain(np.zeros(3))
    assert _open_functions(plain)


def test_processes_that_fill_the_cache_at_once_lose_nothing(tmp_path: Path) -> None:
    code = (
        "import sys, numpy as np\nfrom minidnn.kernels.simd import address\n"
        "print('ready', flush=True)\nsys.stdin.readline()\n"
        "for ndim in map(int, sys.argv[1:]):\n"
        "    address.compile((__import__('numba').typeof(np.zeros((1,) * ndim, 'f')),))\n"
    )
    env = {"MINIDNN_CACHE_DIR": str(tmp_path), "PATH": ""}
    every = [str(n) for n in range(1, 13)]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, *every[start::3]],
            cwd=ROOT,
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for start in range(3)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.communicate("go\n")
        assert process.returncode == 0
    (index,) = tmp_path.rglob("simd.address*.nbi")
    entries = list(tmp_path.rglob("simd.address*.nbc"))
    assert index.stat().st_size > 0
    assert len(entries) == len(every)


def test_a_kernel_no_helper_can_compile_fails_where_it_is_called(tmp_path: Path) -> None:
    bad = [Call("minidnn.kernels.relu", "fused_forward_loop", (numba.types.unicode_type,))] * 4
    compile_all(bad, processes=2)
    assert missing(bad) == bad


def test_warming_up_puts_back_everything_named() -> None:
    rng = np.random.default_rng(3)
    net = minidnn.Sequential(
        minidnn.Conv2d(3, 4, 3, rng=rng),
        minidnn.BatchNorm2d(4),
        minidnn.Dropout(0.5),
        minidnn.GlobalAvgPool2d(),
        minidnn.Linear(4, 2, rng=rng),
    )
    optimizer = minidnn.Adam(net.parameters())
    ema = minidnn.EMA(net, 0.9)
    x = rng.normal(size=(3, 6, 6, 3)).astype(np.float32)

    def step() -> None:
        optimizer.zero_grad()
        minidnn.cross_entropy(net(minidnn.Tensor(x)), np.array([0, 1, 1])).backward()
        optimizer.step()
        ema.update()

    step()
    kept: list[minidnn.Module | minidnn.Adam | minidnn.EMA] = [net, optimizer, ema]
    before = [{n: np.array(a) for n, a in it.state_dict().items()} for it in kept]
    assert minidnn.warm_up(step, net, optimizer, ema) > 5
    for it, state in zip(kept, before, strict=True):
        assert {n: a.tobytes() for n, a in state.items()} == {
            n: np.asarray(a).tobytes() for n, a in it.state_dict().items()
        }
    assert all(p.grad is None or not p.grad.any() for p in net.parameters())


def test_a_step_that_fails_leaves_everything_as_it_was() -> None:
    net = minidnn.Linear(2, 2)
    before = net.weight.data.copy()

    def step() -> None:
        net.weight.data[...] = 7
        raise RuntimeError("no data")

    with pytest.raises(RuntimeError, match="no data"):
        minidnn.warm_up(step, net)
    np.testing.assert_array_equal(net.weight.data, before)
