"""Run depthwise kernels on raw addresses at all odd sizes, between unreadable pages.

``python -m tests.guard_depthwise`` dies of a segmentation fault if a kernel goes too far, and
prints how many maps were convolved, forward and backward, otherwise.
"""

from __future__ import annotations

import faulthandler
from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np

from minidnn.kernels import depthwise
from minidnn.kernels.jit import set_num_threads
from tests.guarded import guarded, guarded_allocations

ODD = range(1, 41, 2)
# Rows know nothing of columns and channels: (height, width, channels), each pair in full.
SIZES = (*product((1, 2, 7), ODD, ODD), *product(ODD, ODD, (3, 33)), *product(ODD, (5,), ODD))
FEW = tuple(product((1, 2, 3, 8), (1, 2, 3, 8), (1, 15, 16, 40)))  # with uneven pads
SETTINGS: tuple[dict[str, Any], ...] = (
    {"stride": (1, 1), "pads": (1, 1, 1, 1)},
    {"stride": (2, 2), "pads": (1, 1, 1, 1)},
)
UNEVEN: tuple[dict[str, Any], ...] = (
    {"stride": (1, 1), "pads": (0, 3, 2, 1)},
    {"stride": (2, 2), "pads": (2, 1, 0, 3)},
    {"stride": (2, 2), "pads": (3, 0, 4, 0)},
)


def main() -> None:
    """Convolve maps guarded at their end, and some guarded at their start."""
    faulthandler.enable()
    print(
        check("end", SIZES, SETTINGS)
        + check("start", SIZES[::7], SETTINGS)
        + check("end", FEW, UNEVEN)
        + check("start", FEW, UNEVEN)
    )


def check(
    at: str, sizes: Sequence[tuple[int, int, int]], settings: Sequence[dict[str, Any]]
) -> int:
    """Convolve maps of these heights, widths and channels, and return how many."""
    set_num_threads(1)
    numbers = np.random.default_rng(0).standard_normal(40**3).astype(np.float32)
    for (h, w, c), setting in product(sizes, settings):
        x, kernel = numbers[: h * w * c].reshape(1, h, w, c), numbers[-9 * c :].reshape(3, 3, c)
        y = depthwise.forward["simd"](x, kernel, **setting)
        want = y, *depthwise.backward["simd"](y, x, kernel, **setting)  # compiles, too
        with guarded_allocations(at):
            given = guarded(x, at), guarded(kernel, at)
            y = depthwise.forward["simd"](*given, **setting)
            got = y, *depthwise.backward["simd"](guarded(y, at), *given, **setting)
        for a, b in zip(got, want, strict=True):
            assert np.array_equal(a, b), (h, w, c, setting, at)
    return len(sizes) * len(settings)


if __name__ == "__main__":
    main()
