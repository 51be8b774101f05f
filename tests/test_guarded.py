"""Kernels on raw addresses never leave their arrays, and the check of it can fail."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from minidnn.kernels import memory
from tests import guard_int8, guarded
from tests.guard_channels import CHANNELS, MAPS, ROWS, SCORES, WINDOWS
from tests.guard_depthwise import FEW, SIZES, UNEVEN
from tests.guard_products import EVEN, ODD
from tests.processes import attempt, run

pytestmark = pytest.mark.skipif(not guarded.SUPPORTED, reason="needs mprotect")

# Writes a whole vector to an address that may be a byte off.
STRAY = """
import numpy as np
from minidnn.kernels import simd
from minidnn.kernels.jit import kernel
from tests.guarded import place

@kernel
def touch(address):
    simd.store(simd.zero(), address)

a = place(simd.LANES, np.float32, {at!r})
touch(a.ctypes.data + {offset})
print("alive")
"""


@pytest.mark.parametrize("at", ["end", "start"])
def test_a_guarded_array_is_an_ordinary_array(at: str) -> None:
    a = np.arange(15, dtype=np.float32).reshape(3, 5)
    copy = guarded.guarded(a, at)
    assert copy.flags.c_contiguous
    assert copy.flags.aligned
    assert np.array_equal(copy, a)


def test_what_kernels_allocate_is_guarded_inside_the_block_only() -> None:
    before = memory.empty, np.empty
    with guarded.guarded_allocations("end"):
        assert memory.empty((3,), np.float32).ctypes.data % 4096 == 4096 - 12
        assert np.zeros(3).ctypes.data % 4096 == 4096 - 24
    assert (memory.empty, np.empty) == before


@pytest.mark.parametrize(
    ("at", "offset", "alive"),
    [("end", 0, True), ("start", 0, True), ("end", 1, False), ("start", -1, False)],
)
def test_one_byte_too_far_kills_the_process(at: str, offset: int, alive: bool) -> None:
    done = attempt(sys.executable, "-c", STRAY.format(at=at, offset=offset))
    assert (done.returncode == 0) == alive, done.stderr
    assert ("alive" in done.stdout) == alive


def test_products_stay_inside_their_arrays_at_all_odd_sizes() -> None:
    done = run(sys.executable, "-m", "tests.guard_products")
    assert int(done.stdout) == 3 * (len(ODD) ** 3 + len(EVEN) ** 3 + len(ODD[::3]) ** 3)


def test_batch_norm_and_others_stay_inside_their_arrays_for_all_channels() -> None:
    done = run(sys.executable, "-m", "tests.guard_channels")
    each = 5 * len(ROWS) + 2 * len(MAPS) * len(WINDOWS) + 3 * len(SCORES)
    assert int(done.stdout) == (len(CHANNELS) + 5) * each


def test_depthwise_stays_inside_its_arrays_at_all_odd_sizes() -> None:
    done = run(sys.executable, "-m", "tests.guard_depthwise")
    each = len(SIZES) + len(SIZES[::7])
    assert int(done.stdout) == 2 * each + 2 * len(UNEVEN) * len(FEW)


def test_8_bit_kernels_stay_inside_their_arrays_at_odd_sizes() -> None:
    done = run(sys.executable, "-m", "tests.guard_int8")
    sizes = guard_int8
    products = len(sizes.ROWS) * len(sizes.LENGTHS) * len(sizes.COLUMNS)
    maps = len(sizes.CHANNELS) * len(sizes.MAPS) * len(sizes.WHERE)
    stems = len(sizes.STEMS) * len(sizes.WHERE)
    by_tiles = len(sizes.TILES) * (2 * (products + maps) + stems)
    assert int(done.stdout) == 2 * (by_tiles + len(sizes.CHANNELS))
