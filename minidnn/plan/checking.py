"""Whether a program read from a file fits together: the loops trust its numbers."""

from __future__ import annotations

import math

import numpy as np

from minidnn.kernels import int8
from minidnn.kernels.int8.checks import check_factors
from minidnn.plan.program import Program, Step
from minidnn.plan.table import KINDS, ON_CODES, STORED

ALLOWED = {"matrix", "taps", "factor", "bias", "slope", "shares"}


def check(program: Program) -> None:
    """Raise ValueError where a step does not fit its values or its weights."""
    _need(program.sizes[program.input] == math.prod(program.input_shape), "the input's size")
    for value, shape in program.outputs:
        _need(program.sizes[value] == math.prod(shape), "an output's size")
    written = {program.input}
    for value, codes in program.codes.items():
        _need(0 <= value < len(program.sizes), "a value of codes")
        _need(0 < codes.scale < math.inf and 0 <= codes.zero <= 255, "codes of a value")
    for i, step in enumerate(program.steps):
        where = f"step {i} ({step.kind})"
        _check_values(program, step, written, where)
        if step.kind in ON_CODES:
            _check_codes(program, step, where)
        else:
            _check_arrays(program, step, where)
        written.add(step.output)
    _need(all(value in written for value, _ in program.outputs), "an output that no step writes")


def _need(holds: bool, what: str) -> None:
    if not holds:
        raise ValueError(f"{what} does not fit")


def _check_values(program: Program, step: Step, written: set[int], where: str) -> None:
    _need(step.kind in KINDS, f"{where}: its kind")
    _need(
        len(step.inputs) == (2 if step.kind in ("add", "int8_add") else 1), f"{where}: its inputs"
    )
    _need(0 <= step.output < len(program.sizes), f"{where}: its output")
    numbers = [*step.shape, *step.out_shape, *step.kernel, *step.stride, *step.dilation]
    _need(len(numbers) == 12, f"{where}: its geometry")
    _need(min(*numbers, step.pool, step.repeat) >= 1, f"{where}: its geometry")
    _need(min(*step.start, step.to) >= 0, f"{where}: its geometry")
    for value in step.inputs:
        _need(value in written and value != step.output, f"{where}: its inputs")
        _need(program.sizes[value or 0] == math.prod(step.shape), f"{where}: its input's size")
    height, width, channels = step.out_shape
    size = (height // step.pool) * (width // step.pool) * step.channels
    _need(program.sizes[step.output] == size, f"{where}: its output's size")
    _need(step.to + channels <= step.channels, f"{where}: its channels")
    product = step.kind in ("convolve", "int8_convolve")
    _need(step.pool == 1 or (product and step.groups == 1), f"{where}: its pool")
    if step.kind in ("scale", "add", "int8_add", "quantize", "dequantize"):
        _need(step.out_shape == step.shape, f"{where}: its shape")
    elif not product:
        _need(channels == step.shape[2] * step.repeat, f"{where}: its channels")


def _check_arrays(program: Program, step: Step, where: str) -> None:
    arrays, channels = step.arrays, step.out_shape[2]
    _need(all(program.item(v) == 4 for v in (*step.inputs, step.output)), f"{where}: its type")
    _need(all(array.dtype.kind == "f" for array in arrays.values()), f"{where}: its weights")
    _need(set(arrays) <= ALLOWED, f"{where}: its weights")
    elements = channels * step.shape[0] * step.shape[1]
    for name in ("factor", "bias", "slope"):
        if name in arrays:
            sizes = (channels, elements) if step.kind == "scale" else (channels,)
            _need(arrays[name].size in sizes, f"{where}: {name}")
    if step.kind == "convolve":
        _check_matrix(step, where)
    elif step.kind == "depthwise":
        _need(arrays["taps"].shape == (*step.kernel, channels), f"{where}: taps")
    elif step.kind == "average":
        _need(arrays["shares"].shape == step.out_shape[:2], f"{where}: shares")


def _check_matrix(step: Step, where: str) -> None:
    matrix = step.arrays["matrix"]
    _need(matrix.ndim in (2, 3), f"{where}: matrix")
    k, n = matrix.shape[-2:]
    filtered = "taps" in step.arrays
    per_row = step.shape[2] if filtered else math.prod(step.kernel) * step.shape[2]
    _need((k * step.groups, n * step.groups) == (per_row, step.out_shape[2]), f"{where}: matrix")
    if filtered:
        _need(step.arrays["taps"].shape == (3, 3, step.shape[2]), f"{where}: taps")
        _need((step.kernel, step.stride) == ((3, 3), (1, 1)), f"{where}: its geometry")


def _check_codes(program: Program, step: Step, where: str) -> None:
    """Hold a step on codes to what its loops trust: types, zero points, sums inside int32."""
    arrays, (seen, _, out) = step.arrays, step.zeros
    coded = [program.codes.get(v or 0) for v in (step.inputs[0], step.output)]
    _need((coded[0] is None) == (step.kind == "quantize"), f"{where}: its input's type")
    real = step.kind == "dequantize" or (
        step.kind in ("int8_convolve", "int8_average") and coded[1] is None
    )
    _need((coded[1] is None) == real, f"{where}: its output's type")
    if step.kind == "int8_add":
        other = program.codes.get(step.inputs[1] or 0)
        _need(other is not None and other.zero == step.zeros[1], f"{where}: its other input")
    for codes, zero in zip(coded, (seen, out), strict=True):
        _need(codes is None or codes.zero == zero, f"{where}: its zero points")
    _need(all(0 <= zero <= 255 for zero in step.zeros), f"{where}: its zero points")
    for name, array in arrays.items():
        _need(name == "matrix" or array.dtype == STORED[name][1], f"{where}: type of {name}")
    if step.kind in ("quantize", "dequantize", "int8_average"):
        _need(set(arrays) == {"scale"} and arrays["scale"].shape == (1,), f"{where}: scale")
        _need(bool(np.isfinite(arrays["scale"][0]) and arrays["scale"][0] > 0), f"{where}: scale")
        whole = step.kernel == step.shape[:2] and step.out_shape[:2] == (1, 1)
        _need(step.kind != "int8_average" or whole, f"{where}: its geometry")
    elif step.kind == "int8_largest":
        _need(not arrays and coded[0] == coded[1], f"{where}: its codes")
    elif step.kind == "int8_add":
        slope, scale = arrays["slope"], arrays["scale"]
        _need(slope.size in (step.shape[2], math.prod(step.shape)), f"{where}: slope")
        _need(scale.shape == (2,) and bool((scale > 0).all()), f"{where}: scale")
        steepest = 256.0 * float(scale.sum()) * float(np.abs(slope).max(initial=1))
        _need(steepest < float(np.finfo(np.float32).max), f"{where}: scale")
    elif step.kind == "int8_depthwise":
        _need(arrays["taps"].shape == (*step.kernel, step.shape[2]), f"{where}: taps")
        _check_sums(step, "taps", "", out, where, as_float=False)
    else:
        _need(arrays["matrix"].ndim == 2 and arrays["matrix"].dtype == np.int8, f"{where}: matrix")
        _check_matrix(step, where)
        _check_sums(step, "matrix", "", out, where, as_float=real)
        _need(not (real and step.pool > 1), f"{where}: its pool")
        if "taps" in arrays:
            _check_sums(step, "taps", "taps_", step.zeros[1], where, as_float=False)


def _check_sums(
    step: Step, weights: str, prefix: str, zero: int, where: str, *, as_float: bool
) -> None:
    """Hold what sums are requantised with to their channels, and sums to int32."""
    bias, scale, slope = (step.arrays[prefix + name] for name in ("bias", "scale", "slope"))
    matrix = step.arrays[weights]
    check_factors(bias, scale, slope, matrix.shape[-1], zero, as_float=as_float)
    low, high = int8.accumulator_bounds(bias, matrix)
    _need(bool(low.min() >= -(2**31) and high.max() < 2**31), f"{where}: its sums")
