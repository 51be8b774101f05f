"""A plan that two Python threads share, where Numba's threads bear one caller at a time."""

from __future__ import annotations

import sys

import pytest

from tests.processes import attempt

# Two threads of Python call one plan again and again; exit code 0 means that all was right.
SOURCE = """
import contextlib, sys, threading, time
import numba
import numpy as np
import minidnn as nn
from minidnn.kernels import jit
from minidnn.models import build

if {unlocked}:
    jit._lock = contextlib.nullcontext()
shape = (16, 16, 3)
plan = nn.compile(build("mlp", input_shape=shape, rng=np.random.default_rng(0)).eval(), (1, *shape))
conv = nn.compile(
    nn.Sequential(nn.Conv2d(3, 8, 3), nn.PReLU(8), nn.GlobalAvgPool2d()).eval(), (1, *shape)
)
rng = np.random.default_rng(1)
inputs = [rng.standard_normal((n, *shape)).astype(np.float32) for n in (1, 3, 40)]
want = [[one(x).tobytes() for x in inputs] for one in (plan, conv)]
assert numba.threading_layer() == "workqueue", numba.threading_layer()
wrong = []

def work(first):
    stop = time.monotonic() + {seconds}
    for i in range(first, 100_000):
        if i >= {calls} and time.monotonic() > stop:
            break
        which, image = i % 2, i // 2 % len(inputs)
        if (plan, conv)[which](inputs[image]).tobytes() != want[which][image]:
            wrong.append((which, image))

threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
sys.exit(f"wrong: {{wrong[:5]}}" if wrong else 0)
"""
ENV = {"NUMBA_THREADING_LAYER": "workqueue", "NUMBA_NUM_THREADS": "2"}


@pytest.mark.parametrize("unlocked", [False, True], ids=["locked", "unlocked"])
def test_two_threads_may_call_plans_where_one_lock_guards_the_regions(unlocked: bool) -> None:
    source = SOURCE.format(unlocked=unlocked, calls=120, seconds=30 if unlocked else 0)
    done = attempt(sys.executable, "-c", source, env=ENV)
    # Without the lock Numba ends the process: the test can fail.
    assert (done.returncode == 0) != unlocked, done.stderr
    if unlocked:
        assert "oncurrent access" in done.stderr
