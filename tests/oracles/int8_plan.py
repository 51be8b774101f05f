"""A program on codes, run step by step with the NumPy rungs of the 8-bit kernels."""

from __future__ import annotations

from typing import Any

import numpy as np

from minidnn.kernels import (
    int8,
    int8_add,
    int8_conv2d,
    int8_depthwise,
    int8_global_avg_pool,
    int8_max_pool,
)
from minidnn.kernels.dequantize import forward as dequantize
from minidnn.kernels.quantize import forward as quantize
from minidnn.plan.program import Program, Step


def run(program: Program, x: Any) -> tuple[Any, ...]:
    """Return a program's outputs; it must consist of 8-bit steps and conversions alone."""
    values = {program.input: x}
    for step in program.steps:
        shape = (len(x), *step.shape)
        seen = [values[v or 0].reshape(shape) for v in step.inputs]
        found = _step(step, seen, program)
        values[step.output] = found.reshape(len(x), -1)
    return tuple(values[v].reshape(len(x), *shape) for v, shape in program.outputs)


def _pads(step: Step) -> tuple[int, int, int, int]:
    """Return the padding: what windows need after the map follows from the output's size."""
    pads = []
    for axis in range(2):
        reach = (step.kernel[axis] - 1) * step.dilation[axis] + 1
        needed = (step.out_shape[axis] - 1) * step.stride[axis] + reach
        after = needed - step.shape[axis] - step.start[axis]
        pads += [step.start[axis], after]
    return pads[0], pads[1], pads[2], pads[3]


def _cut(step: Step, x: Any) -> tuple[Any, tuple[int, int, int, int]]:
    """Cut off rows and columns that no window reaches, which would be negative padding."""
    top, bottom, left, right = _pads(step)
    x = x[:, : x.shape[1] + min(bottom, 0), : x.shape[2] + min(right, 0)]
    return np.ascontiguousarray(x), (top, max(bottom, 0), left, max(right, 0))


def _step(step: Step, seen: list[Any], program: Program) -> Any:
    x = seen[0]
    arrays, (zero_in, zero_mid, zero) = step.arrays, step.zeros
    as_float = program.item(step.output) == 4
    if step.kind == "quantize":
        return quantize["numpy"](x, scale=arrays["scale"][0], zero=zero)
    if step.kind == "dequantize":
        return dequantize["numpy"](x, scale=arrays["scale"][0], zero=zero_in)
    if step.kind == "int8_average":
        scale, zeros = float(arrays["scale"][0]), {"zero_in": zero_in, "zero": zero}
        return int8_global_avg_pool.forward["numpy"](x, scale=scale, as_float=as_float, **zeros)
    if step.kind == "int8_add":
        slope, flat = arrays["slope"], (-1, arrays["slope"].size)
        scale, scale_other = map(float, arrays["scale"])
        return int8_add.forward["numpy"](
            x.reshape(flat), seen[1].reshape(flat), slope, scale=scale, scale_other=scale_other,
            zero_in=zero_in, zero_other=zero_mid, zero=zero,
        )  # fmt: skip
    x, pads = _cut(step, x)
    if step.kind == "int8_largest":
        return int8_max_pool.forward["numpy"](
            x, size=step.kernel, stride=step.stride, pads=pads, ceil_mode=False
        )
    where: Any = {"stride": step.stride, "pads": pads}
    endings = [arrays[name] for name in ("bias", "scale", "slope")]
    if step.kind == "int8_depthwise":
        return int8_depthwise.forward["numpy"](
            x, arrays["taps"], *endings, zero_in=zero_in, zero=zero, **where
        )
    assert step.kind == "int8_convolve"
    kernel = step.kernel
    if "taps" in arrays:
        filters = [arrays[f"taps_{name}"] for name in ("bias", "scale", "slope")]
        x = int8_depthwise.forward["numpy"](
            x, arrays["taps"], *filters, zero_in=zero_in, zero=zero_mid, **where
        )
        kernel, where, zero_in = (1, 1), {"stride": (1, 1), "pads": (0, 0, 0, 0)}, zero_mid
    y = int8_conv2d.forward["numpy"](
        x, int8.pack(arrays["matrix"]), *endings, kernel_size=kernel, dilation=step.dilation,
        zero_in=zero_in, zero=zero, as_float=as_float, **where,
    )  # fmt: skip
    if step.pool == 1:
        return y
    size = (step.pool, step.pool)
    y = y[:, : y.shape[1] // step.pool * step.pool, : y.shape[2] // step.pool * step.pool]
    return int8_max_pool.forward["numpy"](
        np.ascontiguousarray(y), size=size, stride=size, pads=(0, 0, 0, 0), ceil_mode=False
    )
