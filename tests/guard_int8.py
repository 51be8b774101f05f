"""Run the 8-bit kernels on raw addresses at odd sizes, between unreadable pages.

``python -m tests.guard_int8`` dies of a segmentation fault if a kernel goes too far, and prints
how many results were right otherwise.
"""

from __future__ import annotations

import faulthandler
import itertools
from typing import Any

import numpy as np

from minidnn.kernels import int8_add, int8_conv2d, int8_depthwise, int8_gemm
from minidnn.kernels.int8 import pack
from tests.cases.int8 import codes, factors, weights
from tests.guarded import guarded, guarded_allocations

ROWS = (1, 2, 3, 6, 8, 13, 14, 15, 29)
LENGTHS = (1, 3, 4, 5, 7, 8, 17)
COLUMNS = (1, 15, 16, 17, 31, 32, 33)
CHANNELS = (1, 31, 32, 33, 63, 64, 65, 130)
MAPS = ((1, 1), (2, 3), (5, 4))
STEMS = ((3, 5), (3, 2), (1, 3), (1, 1), (5, 3))  # channels, kernel
TILES = [rung for rung in int8_gemm.forward.rungs if rung not in ("naive", "numpy")]
WHERE: tuple[dict[str, Any], ...] = (
    {"stride": (1, 1), "pads": (1, 1, 1, 1), "zero_in": 9, "zero": 100},
    {"stride": (2, 2), "pads": (2, 2, 2, 2), "zero_in": 9, "zero": 100},
)


def main() -> None:
    """Check every size guarded at the end, and at the start."""
    faulthandler.enable()
    check("end", compiled=False)
    print(check("end") + check("start"))


def check(at: str, *, compiled: bool = True) -> int:
    """Compare all results with those of the numpy rungs, and return how many."""
    if not compiled:
        few = products(at, (3,), (5,), (7,)) + maps(at, (64,), MAPS[1:2])
        return few + stems(at, STEMS[:1]) + sums(at, (7,))
    with guarded_allocations(at):
        many = products(at, ROWS, LENGTHS, COLUMNS) + maps(at, CHANNELS, MAPS)
        return many + stems(at, STEMS) + sums(at, CHANNELS)


def agree(ladder: Any, given: tuple[Any, ...], at: str, **settings: Any) -> int:
    """Compare the rungs that work on vectors with the numpy rung, bit by bit."""
    held = tuple(guarded(a, at) for a in given)
    want = ladder["numpy"](*held, **settings)
    for rung in TILES:
        assert np.array_equal(ladder[rung](*held, **settings), want), (rung, at, settings)
    return len(TILES)


def products(at: str, rows: Any, lengths: Any, columns: Any) -> int:
    """Check matrix products, to codes and to float32."""
    count, rng = 0, np.random.default_rng(0)
    for m, k, n in itertools.product(rows, lengths, columns):
        given = (codes(rng, m, k), pack(weights(rng, k, n)), *factors(rng, n, k))
        for as_float in (False, True):
            count += agree(int8_gemm.forward, given, at, zero=128, as_float=as_float)
    return count


def maps(at: str, channels: Any, sizes: Any) -> int:
    """Check convolutions, depthwise and full."""
    count, rng = 0, np.random.default_rng(1)
    for c, (h, w), where in itertools.product(channels, sizes, WHERE):
        x = codes(rng, 2, h, w, c)
        given = (x, weights(rng, 3, 3, c), *factors(rng, c, 9))
        count += agree(int8_depthwise.forward, given, at, **where)
        full = (x, pack(weights(rng, 9 * c, 5)), *factors(rng, 5, 9 * c))
        count += agree(int8_conv2d.forward, full, at, kernel_size=(3, 3), **where)
    return count


def stems(at: str, kinds: Any) -> int:
    """Check convolutions whose windows are runs of few bytes."""
    count, rng = 0, np.random.default_rng(2)
    for (c, k), where in itertools.product(kinds, WHERE):
        given = (codes(rng, 2, 7, 6, c), pack(weights(rng, k * k * c, 33)))
        count += agree(
            int8_conv2d.forward, (*given, *factors(rng, 33, k * k * c)), at, kernel_size=(k, k),
            **where,
        )  # fmt: skip
    return count


def sums(at: str, channels: Any) -> int:
    """Check sums of two maps."""
    rng = np.random.default_rng(3)
    for c in channels:
        given = (codes(rng, 5, c), codes(rng, 5, c), rng.normal(0, 0.7, c).astype(np.float32))
        held = tuple(guarded(a, at) for a in given)
        settings: dict[str, Any] = {
            "scale": 0.4,
            "scale_other": 0.9,
            "zero_in": 3,
            "zero_other": 99,
            "zero": 128,
        }
        want = int8_add.forward["numpy"](*held, **settings)
        assert np.array_equal(int8_add.forward["fused"](*held, **settings), want), (at, c)
    return len(channels)


if __name__ == "__main__":
    main()
