"""What the 8-bit ladders are measured on: codes and packed weights at a network's shapes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from minidnn.kernels.int8 import pack
from minidnn.kernels.simd import VNNI
from minidnn.measure.shapes import STEM_KERNEL, Shapes

Draw = Callable[[np.random.Generator], tuple[Any, ...]]
# Ladder, label, arguments, settings, multiply-accumulates.
Call = tuple[str, str, Draw, dict[str, Any], int]

ZERO = 128
# Products of bytes in the time of a float32 multiply-add: what AVX-512 VNNI multiplies with one
# instruction, others after widening bytes to 16 bits.
PER_MULTIPLY_ADD = 4 if VNNI else 2
PEAK_NOTE = f"8-bit kernels: of {PER_MULTIPLY_ADD} times the float32 peak."
_ADD = {"scale": 0.6, "scale_other": 0.7, "zero_in": ZERO, "zero_other": 100, "zero": ZERO}


def is_8_bit(ladder: str) -> bool:
    """Tell whether a ladder multiplies bytes."""
    return ladder.startswith("int8_")


def peak_of(ladder: str, flops: float) -> float:
    """Return what a ladder's operations per second are held against.

    Parameters
    ----------
    ladder : str
    flops : float
        The machine's peak of float32 multiply-adds.
    """
    return flops * PER_MULTIPLY_ADD if is_8_bit(ladder) else flops


def calls(shapes: Shapes, batch: int) -> Iterator[Call]:
    """Yield a call of each 8-bit ladder for every layer that it would compute."""
    yield from _stem(shapes, batch)
    for m in shapes.depthwise:
        x = (batch, m.size, m.size, m.channels)
        settings = {"stride": (1, 1), "pads": (1, 1, 1, 1), "zero_in": ZERO, "zero": ZERO}
        draw = _layer(x, (3, 3, m.channels), packed=False)
        yield "int8_depthwise.forward", m.label, draw, settings, 9 * int(np.prod(x))
    for p in shapes.pointwise:
        x, w = (batch, p.size, p.size, p.c_in), (p.c_in, p.c_out)
        rows = (batch * p.size**2, p.c_in)
        macs = rows[0] * p.c_in * p.c_out
        yield "int8_pointwise.forward", p.label, _layer(x, w), {"zero": ZERO}, macs
        yield "int8_gemm.forward", p.label, _layer(rows, w), {"zero": ZERO}, macs
    for m in shapes.activation:
        yield "int8_add.forward", m.label, _two(batch, m.size, m.size, m.channels), _ADD, 0
    two = {"size": (2, 2), "stride": (2, 2), "pads": (0, 0, 0, 0), "ceil_mode": False}
    for m in shapes.max_pool:
        yield "int8_max_pool.forward", m.label, _codes(batch, m.size, m.size, m.channels), two, 0
    yield from _ends(shapes, batch)


def _stem(shapes: Shapes, batch: int) -> Iterator[Call]:
    size, c_in, k = shapes.image.size, shapes.image.channels, STEM_KERNEL
    w, outputs = (k * k * c_in, shapes.stem_channels), (size - k + 1) ** 2
    settings = {
        "kernel_size": (k, k), "stride": (1, 1), "pads": (0, 0, 0, 0), "zero_in": 0, "zero": ZERO
    }  # fmt: skip
    draw = _layer((batch, size, size, c_in), w)
    yield "int8_conv2d.forward", "stem", draw, settings, batch * outputs * w[0] * w[1]


def _ends(shapes: Shapes, batch: int) -> Iterator[Call]:
    m, image = shapes.global_avg_pool, shapes.image
    average = {"scale": 1 / m.size**2, "zero_in": ZERO, "zero": ZERO}
    maps = _codes(batch, m.size, m.size, m.channels)
    yield "int8_global_avg_pool.forward", "head", maps, average, 0
    pixels = (batch, image.size, image.size, image.channels)
    step = {"scale": 0.02, "zero": ZERO}

    def reals(rng: np.random.Generator) -> tuple[Any, ...]:
        return (rng.standard_normal(pixels).astype(np.float32),)

    yield "quantize.forward", "batch", reals, step, 0
    yield "dequantize.forward", "batch", _codes(*pixels), step, 0


def _codes(*shape: int) -> Draw:
    """Return what draws an array of codes."""
    return lambda rng: (rng.integers(0, 256, shape, dtype=np.uint8),)


def _two(*shape: int) -> Draw:
    """Return what draws two arrays of codes, and slopes."""

    def args(rng: np.random.Generator) -> tuple[Any, ...]:
        x, other = (rng.integers(0, 256, shape, dtype=np.uint8) for _ in range(2))
        return x, other, np.full(shape[-1], 0.25, np.float32)

    return args


def _layer(x: tuple[int, ...], w: tuple[int, ...], *, packed: bool = True) -> Draw:
    """Return what draws codes, weights, biases, scales that fill the codes, and slopes."""
    channels, terms = w[-1], int(np.prod(w[:-1]))

    def args(rng: np.random.Generator) -> tuple[Any, ...]:
        codes = rng.integers(0, 256, x, dtype=np.uint8)
        weights = rng.integers(-127, 128, w).astype(np.int8)
        bias = (-ZERO * weights.reshape(-1, channels).sum(axis=0, dtype=np.int64)).astype(np.int32)
        scale = (rng.uniform(0.5, 1.0, channels) * 0.01 / np.sqrt(terms)).astype(np.float32)
        slope = np.full(channels, 0.25, np.float32)
        return codes, pack(weights) if packed else weights, bias, scale, slope

    return args
