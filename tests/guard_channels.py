"""Run batch norm, max pooling and narrow linear layers at all odd sizes, between unreadable pages.

``python -m tests.guard_channels`` dies of a segmentation fault if a kernel goes too far, and
prints how many results were right otherwise.
"""

from __future__ import annotations

import faulthandler
from collections.abc import Iterable
from typing import Any

import numpy as np

from minidnn.kernels import batchnorm, batchnorm_prelu, linear, max_pool
from minidnn.kernels.checks import Array
from tests.guarded import guarded, guarded_allocations, place

CHANNELS = range(1, 41)
ROWS = (1, 2, 3, 31, 34)
MAPS = ((1, 1), (2, 2), (3, 5), (5, 4))
SCORES = ((1, 1), (2, 5), (3, 7))  # rows and columns
EPS: dict[str, Any] = {"eps": 1e-3}
WINDOWS: tuple[dict[str, Any], ...] = (
    {"size": (2, 2), "stride": (2, 2), "pads": (0, 0, 0, 0), "ceil_mode": True},
    {"size": (3, 3), "stride": (2, 2), "pads": (1, 1, 1, 1), "ceil_mode": False},
)


def main() -> None:
    """Check every size guarded at the end, and some at the start."""
    faulthandler.enable()
    check(4, "end", compiled=False)
    print(
        sum(check(c, "end") for c in CHANNELS) + sum(check(c, "start") for c in (1, 15, 16, 17, 33))
    )


def check(channels: int, at: str, *, compiled: bool = True) -> int:
    """Compare all results for that many channels, and return how many."""
    rng = np.random.default_rng(channels)
    if not compiled:
        return normalise(rng, channels, at) + pool(rng, channels, at) + classify(rng, channels, at)
    with guarded_allocations(at):
        return normalise(rng, channels, at) + pool(rng, channels, at) + classify(rng, channels, at)


def agree(got: Any, want: Any) -> int:
    """Compare a result, or a tuple of them, with what the numpy rung gives."""
    pairs: Iterable[tuple[Array, Array]]
    pairs = zip(got, want, strict=True) if isinstance(got, tuple) else [(got, want)]
    for g, w in pairs:
        np.testing.assert_allclose(g, w, rtol=1e-3, atol=1e-3)
    return 1


def normalise(rng: np.random.Generator, channels: int, at: str) -> int:
    """Check batch norm, alone and with PReLU, and the pieces that other kernels call."""
    count = 0
    for rows in ROWS:
        x, dy, gamma, beta, slope = (
            guarded(rng.standard_normal(shape).astype(np.float32), at)
            for shape in ((rows, channels), (rows, channels), channels, channels, channels)
        )
        y, mean, var = batchnorm.forward["numpy"](x, gamma, beta, **EPS)
        count += agree(batchnorm.forward["fused"](x, gamma, beta, **EPS), (y, mean, var))
        given, z_of = (dy, x, gamma, mean, var), (dy, x, gamma, beta, slope, mean, var)
        for ladder, args in ((batchnorm.backward, given), (batchnorm_prelu.backward, z_of)):
            count += agree(ladder["fused"](*args, **EPS), ladder["numpy"](*args, **EPS))
        mean, scale = guarded(mean, at), guarded(gamma / np.sqrt(var + EPS["eps"]), at)
        a, dx = place(x.shape, np.float32, at), guarded(dy, at)
        batchnorm_prelu.activate(x, mean, scale, beta, slope, a)
        z = (x - mean) * scale + beta
        count += agree(a, np.where(z > 0, z, slope * z))
        batchnorm_prelu.go_back(dx, x, mean, scale, beta, slope, gamma, beta, dx)
        want = scale * np.where(z > 0, dy, slope * dy) + gamma * (x - mean) + beta
        count += agree(dx, want)
    return count


def pool(rng: np.random.Generator, channels: int, at: str) -> int:
    """Check max pooling, whose positions are bytes."""
    count = 0
    for h, w in MAPS:
        # Few different values, and some that are none: ties and NaN in most windows.
        x = guarded(np.round(rng.standard_normal((2, h, w, channels))).astype(np.float32), at)
        x[rng.random(x.shape) < 0.1] = np.nan
        for windows in WINDOWS:
            y, argmax = max_pool.forward["fused"](x, **windows)
            count += agree((y, argmax), max_pool.forward["numpy"](x, **windows))
            dy, argmax = guarded(-y, at), guarded(argmax, at)
            args, settings = (dy, argmax), {**windows, "x_shape": x.shape}
            got = max_pool.backward["fused"](*args, **settings)
            count += agree(got, max_pool.backward["numpy"](*args, **settings))
    return count


def classify(rng: np.random.Generator, channels: int, at: str) -> int:
    """Check the products of a linear layer with few outputs."""
    count = 0
    for rows, columns in SCORES:
        x, w, dy = (
            guarded(rng.standard_normal(shape).astype(np.float32), at)
            for shape in ((rows, channels), (channels, columns), (rows, columns))
        )
        count += agree(linear.forward["simd"](x, w), x @ w)
        count += agree(linear.backward_input["simd"](dy, w), dy @ w.T)
        count += agree(linear.backward_weight["simd"](dy, x), x.T @ dy)
    return count


if __name__ == "__main__":
    main()
