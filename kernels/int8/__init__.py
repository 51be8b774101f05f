"""8-bit inference: what its kernels share, the arithmetic and how weights are packed.

An activation is a *code*, 0 to 255, that stands for the real number (code - zero) * scale, with
one zero point and one scale per array. A weight is an integer from -127 to 127 that stands for
weight * scale, with one scale per output channel. docs/int8.md derives all of it.

| file       | holds                                                                           |
|------------|---------------------------------------------------------------------------------|
| arithmetic | requantisation in NumPy and for loops, quantised weights and biases, bounds     |
| packing    | weights as panels of 32 columns, the same for all rungs and CPUs                |
| checks     | what the 8-bit ladders refuse                                                   |
| vectors    | registers of bytes and of sums, with VNNI and with AVX2                         |
| tile       | a block of sums in registers: the matrix product                                |
| taps       | a window that slides through registers: the depthwise convolution               |

The ladders are `int8_gemm`, `int8_pointwise`, `int8_depthwise`, `int8_conv2d`, `int8_add`,
`int8_max_pool`, `int8_global_avg_pool`, `quantize` and `dequantize`. All rungs of one give the
same bits.

Rungs are there where the CPU that Numba compiles for can run them: `vnni` (AVX-512 VNNI),
`avx2`, and loops for all others.
"""

from __future__ import annotations

from .arithmetic import (
    SumError,
    accumulator_bounds,
    quantise_bias,
    quantise_weights,
    requantise,
    requantised,
)
from .packing import GROUP, PANEL, pack, unpack

__all__ = [
    "GROUP",
    "PANEL",
    "SumError",
    "accumulator_bounds",
    "pack",
    "quantise_bias",
    "quantise_weights",
    "requantise",
    "requantised",
    "unpack",
]
