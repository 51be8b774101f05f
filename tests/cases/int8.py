"""Cases of the 8-bit kernels: every rung gives the oracle's bits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from minidnn.kernels.int8 import pack
from tests.cases import CASES, Case
from tests.oracles import int8 as oracle

Draw = Callable[[np.random.Generator], tuple[Any, ...]]


def factors(rng: np.random.Generator, channels: int, terms: int) -> tuple[Any, Any, Any]:
    """Draw a bias, a scale that spreads sums over the codes, and slopes of both signs."""
    bias = rng.integers(-3000, 3000, channels).astype(np.int32)
    scale = (rng.uniform(0.2, 1.2, channels) * 0.005 / np.sqrt(terms)).astype(np.float32)
    return bias, scale, rng.normal(0.0, 0.7, channels).astype(np.float32)


def codes(rng: np.random.Generator, *shape: int) -> Any:
    """Draw codes, the extremes among them."""
    x = rng.integers(0, 256, shape, dtype=np.uint8)
    flat = x.reshape(-1)
    flat[:: max(1, flat.size // 5)] = 255
    return x


def weights(rng: np.random.Generator, *shape: int) -> Any:
    """Draw weights, the extremes among them."""
    w = rng.integers(-127, 128, shape).astype(np.int8)
    flat = w.reshape(-1)
    flat[:: max(1, flat.size // 5)] = -127
    return w


def _product(lead: tuple[int, ...], k: int, n: int) -> Draw:
    def args(rng: np.random.Generator) -> tuple[Any, ...]:
        return codes(rng, *lead, k), pack(weights(rng, k, n)), *factors(rng, n, k)

    return args


def _extreme(code: int, weight: int, k: int, zero: int) -> Draw:
    """All products as large as they get, in a column, and half of them in another."""

    def args(rng: np.random.Generator) -> tuple[Any, ...]:
        w = np.full((k, 2), weight, np.int8)
        w[k // 2 :, 1] = -weight
        bias = (-zero * w.astype(np.int64).sum(axis=0)).astype(np.int32)
        scale = np.array([100 / (255 * 127 * k), 3e-4], np.float32)
        return np.full((3, k), code, np.uint8), pack(w), bias, scale, np.full(2, 0.5, np.float32)

    return args


def _halves(rng: np.random.Generator) -> tuple[Any, ...]:
    """Sums whose real numbers are halves: only rounding to even gives the right codes."""
    a = np.arange(0, 64, dtype=np.uint8).reshape(-1, 1)
    w = np.array([[1, -1, 3]], np.int8)
    ones = np.ones(3, np.float32)
    return a, pack(w), np.zeros(3, np.int32), 0.5 * ones, ones


# M, K, N: not multiples of the tile's rows, of 4 and of 32; long; cut by rows and by columns.
PRODUCTS = {
    "1x1x1": (1, 1, 1),
    "3x3x5": (3, 3, 5),
    "one_row": (1, 17, 33),
    "one_tile": (14, 8, 32),
    "odd": (29, 7, 65),
    "heights": (27, 6, 31),
    "rows_cut": (400, 130, 100),
    "columns_cut": (5, 1000, 1050),
}
for name, lead in (("gemm", False), ("pointwise", True)):
    CASES[f"int8_{name}.forward"] = [
        Case(
            label,
            _product((1, m, 1) if lead else (m,), k, n),
            oracle.gemm,
            terms=1,
            settings={"zero": zero, "as_float": as_float},
            exact=True,
        )
        for (label, (m, k, n)), zero, as_float in zip(
            PRODUCTS.items(), (0, 255, 128, 3, 0, 200, 7, 255), (False, True) * 4, strict=True
        )
    ]
CASES["int8_gemm.forward"] += [
    Case(
        f"extreme_{code}_{weight}_zero_{zero}",
        _extreme(code, weight, 4608, zero),
        oracle.gemm,
        terms=1,
        settings={"zero": 255 - zero},
        exact=True,
    )
    for code in (0, 255)
    for weight in (-127, 127)
    for zero in (0, 255)
] + [Case("halves", _halves, oracle.gemm, terms=1, settings={"zero": 101}, exact=True)]


def _maps(n: int, h: int, w: int, c: int, k: tuple[int, int], out: int = 0) -> Draw:
    """Draw maps, with kernels per channel, or packed ones to `out` channels."""

    def args(rng: np.random.Generator) -> tuple[Any, ...]:
        x, kernels = codes(rng, n, h, w, c), weights(rng, *k, *((c, out) if out else (c,)))
        if not out:
            return x, kernels, *factors(rng, c, k[0] * k[1])
        return x, pack(kernels.reshape(-1, out)), *factors(rng, out, k[0] * k[1] * c)

    return args


CASES["int8_depthwise.forward"] = [
    Case(
        name,
        _maps(*shape, k),
        oracle.depthwise,
        terms=1,
        exact=True,
        settings={"stride": stride, "pads": pads, "zero_in": zero_in, "zero": zero},
    )
    for name, shape, k, stride, pads, zero_in, zero in (
        ("n1_c1", (1, 1, 1, 1), (3, 3), (1, 1), (1, 1, 1, 1), 0, 255),
        ("c33", (2, 5, 4, 33), (3, 3), (1, 1), (1, 1, 1, 1), 255, 0),
        ("c64_map1", (1, 1, 1, 64), (3, 3), (1, 1), (1, 1, 1, 1), 128, 128),
        ("c65", (3, 7, 6, 65), (3, 3), (1, 1), (1, 1, 1, 1), 17, 200),
        ("c130_same2", (2, 6, 8, 130), (3, 3), (2, 2), (0, 1, 0, 1), 255, 3),
        ("strides_differ", (1, 5, 7, 70), (3, 3), (1, 2), (2, 2, 2, 2), 9, 90),
        ("no_border", (1, 4, 3, 96), (3, 3), (1, 1), (0, 0, 0, 0), 0, 0),
        ("stride3", (1, 9, 9, 64), (3, 3), (3, 3), (1, 1, 1, 1), 5, 120),
        ("5x2", (2, 6, 6, 7), (5, 2), (1, 1), (2, 2, 1, 0), 77, 130),
        ("chunks", (9, 8, 8, 64), (3, 3), (1, 1), (1, 1, 1, 1), 1, 128),
    )
]
CASES["int8_conv2d.forward"] = [
    Case(
        name,
        _maps(*shape, k, out),
        oracle.conv2d,
        terms=1,
        exact=True,
        settings={
            "kernel_size": k,
            "stride": stride,
            "pads": pads,
            "dilation": dilation,
            "zero_in": zero_in,
            "zero": zero,
            "as_float": as_float,
        },
    )
    for name, shape, k, out, stride, pads, dilation, zero_in, zero, as_float in (
        ("n1_c1", (1, 1, 1, 1), (1, 1), 1, (1, 1), (0, 0, 0, 0), (1, 1), 0, 255, False),
        ("1x1_c3", (1, 3, 5, 3), (1, 1), 7, (1, 1), (0, 0, 0, 0), (1, 1), 3, 25, False),
        ("stem", (2, 8, 9, 3), (5, 5), 33, (1, 1), (0, 0, 0, 0), (1, 1), 0, 128, False),
        ("padded", (2, 5, 4, 7), (3, 3), 17, (1, 1), (1, 1, 1, 1), (1, 1), 255, 0, True),
        ("stride2", (1, 7, 6, 16), (3, 2), 32, (2, 2), (0, 1, 1, 0), (1, 1), 128, 100, False),
        ("dilated", (1, 9, 8, 5), (3, 3), 9, (1, 2), (2, 2, 2, 2), (2, 3), 40, 10, False),
        ("cut", (2, 12, 12, 20), (3, 3), 70, (1, 1), (1, 1, 1, 1), (1, 1), 200, 50, False),
    )
]


def _codes(shape: tuple[int, ...]) -> Draw:
    return lambda rng: (codes(rng, *shape),)


def _two(shape: tuple[int, ...]) -> Draw:
    """Draw two maps, and slopes of both signs, 0 and 1 among them."""

    def args(rng: np.random.Generator) -> tuple[Any, ...]:
        slope = rng.normal(0.0, 0.7, shape[-1]).astype(np.float32)
        slope[::5], slope[1::7] = 0, 1
        return codes(rng, *shape), codes(rng, *shape), slope

    return args


CASES["int8_add.forward"] = [
    Case(
        name,
        _two(shape),
        oracle.add,
        terms=1,
        exact=True,
        settings={
            "scale": scale,
            "scale_other": other,
            "zero_in": zeros[0],
            "zero_other": zeros[1],
            "zero": zeros[2],
        },
    )
    for name, shape, scale, other, zeros in (
        ("n1_c1", (1, 1), 1.0, 1.0, (0, 0, 0)),
        ("halves", (2, 7, 5, 33), 0.5, 0.5, (128, 100, 120)),
        ("c16", (2, 5, 6, 16), 0.31, 0.77, (0, 255, 128)),
        ("c7", (3, 4, 4, 7), 0.9, 1e-3, (255, 3, 0)),
        ("saturates", (1, 3, 3, 17), 40.0, 1.7, (90, 130, 255)),
        ("chunks", (9, 8, 8, 128), 0.63, 0.4, (140, 120, 128)),
    )
]
CASES["int8_max_pool.forward"] = [
    Case(
        name,
        _codes(shape),
        oracle.max_pool,
        terms=1,
        exact=True,
        settings={"size": size, "stride": stride, "pads": pads, "ceil_mode": ceil},
    )
    for name, shape, size, stride, pads, ceil in (
        ("2x2_odd_map", (2, 7, 5, 33), (2, 2), (2, 2), (0, 0, 0, 0), False),
        ("ceil", (1, 7, 5, 16), (2, 2), (2, 2), (0, 0, 0, 0), True),
        ("3x3_padded", (2, 5, 6, 7), (3, 3), (2, 2), (1, 1, 1, 1), False),
        ("n1_c1", (1, 1, 1, 1), (1, 1), (1, 1), (0, 0, 0, 0), False),
        ("chunks", (9, 8, 8, 128), (2, 2), (2, 2), (0, 0, 0, 0), False),
    )
]
CASES["int8_global_avg_pool.forward"] = [
    Case(
        name,
        _codes(shape),
        oracle.global_avg_pool,
        terms=1,
        exact=True,
        settings={
            "scale": 0.9 / (shape[1] * shape[2]),
            "zero_in": zero_in,
            "zero": zero,
            "as_float": as_float,
        },
    )
    for name, shape, zero_in, zero, as_float in (
        ("n1_c1", (1, 1, 1, 1), 0, 255, False),
        ("odd", (2, 3, 5, 33), 128, 100, False),
        ("logits", (3, 4, 4, 17), 255, 0, True),
        ("chunks", (9, 8, 8, 128), 3, 7, False),
    )
]


def _reals(shape: tuple[int, ...]) -> Draw:
    """Draw numbers, halves and infinities among them."""

    def args(rng: np.random.Generator) -> tuple[Any, ...]:
        x = (40 * rng.standard_normal(shape)).astype(np.float32)
        flat = x.reshape(-1)
        flat[::3] = np.rint(flat[::3]) + 0.5
        flat[:2] = np.inf, -np.inf
        return (x,)

    return args


CASES["quantize.forward"] = [
    Case(
        name,
        _reals(shape),
        oracle.quantize,
        terms=1,
        exact=True,
        settings={"scale": scale, "zero": zero},
    )
    for name, shape, scale, zero in (
        ("halves", (2, 3, 5, 7), 1.0, 128),
        ("zero0", (50,), 0.37, 0),
        ("zero255", (3, 17), 1e-3, 255),
        ("chunks", (40, 1000), 0.7, 101),
    )
]
CASES["dequantize.forward"] = [
    Case(
        name,
        _codes(shape),
        oracle.dequantize,
        terms=1,
        exact=True,
        settings={"scale": scale, "zero": zero},
    )
    for name, shape, scale, zero in (
        ("odd", (2, 3, 5, 7), 0.1, 128),
        ("zero255", (33,), 3.7, 255),
        ("chunks", (40, 1000), 0.7, 0),
    )
]
