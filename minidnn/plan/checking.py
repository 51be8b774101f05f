"""Whether a program read from a file fits together: the loops trust its numbers."""

from __future__ import annotations

import math

from minidnn.plan.program import Program, Step

KINDS = ("convolve", "depthwise", "scale", "add", "copy", "largest", "average")
ALLOWED = {"matrix", "taps", "factor", "bias", "slope", "shares"}


def check(program: Program) -> None:
    """Raise ValueError where a step does not fit its values or its weights."""
    _need(program.sizes[program.input] == math.prod(program.input_shape), "the input's size")
    for value, shape in program.outputs:
        _need(program.sizes[value] == math.prod(shape), "an output's size")
    written = {program.input}
    for i, step in enumerate(program.steps):
        where = f"step {i} ({step.kind})"
        _check_values(program, step, written, where)
        _check_arrays(step, where)
        written.add(step.output)
    _need(all(value in written for value, _ in program.outputs), "an output that no step writes")


def _need(holds: bool, what: str) -> None:
    if not holds:
        raise ValueError(f"{what} does not fit")


def _check_values(program: Program, step: Step, written: set[int], where: str) -> None:
    _need(step.kind in KINDS, f"{where}: its kind")
    _need(len(step.inputs) == (2 if step.kind == "add" else 1), f"{where}: its inputs")
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
    _need(step.pool == 1 or (step.kind == "convolve" and step.groups == 1), f"{where}: its pool")
    if step.kind in ("scale", "add"):
        _need(step.out_shape == step.shape, f"{where}: its shape")
    elif step.kind != "convolve":
        _need(channels == step.shape[2] * step.repeat, f"{where}: its channels")


def _check_arrays(step: Step, where: str) -> None:
    arrays, channels = step.arrays, step.out_shape[2]
    _need(set(arrays) <= ALLOWED, f"{where}: its weights")
    elements = channels * step.shape[0] * step.shape[1]
    for name in ("factor", "bias", "slope"):
        if name in arrays:
            sizes = (channels, elements) if step.kind == "scale" else (channels,)
            _need(arrays[name].size in sizes, f"{where}: {name}")
    if step.kind == "convolve":
        matrix = arrays["matrix"]
        _need(matrix.ndim in (2, 3), f"{where}: matrix")
        k, n = matrix.shape[-2:]
        filtered = "taps" in arrays
        per_row = step.shape[2] if filtered else math.prod(step.kernel) * step.shape[2]
        _need((k * step.groups, n * step.groups) == (per_row, channels), f"{where}: matrix")
        if filtered:
            _need(arrays["taps"].shape == (3, 3, step.shape[2]), f"{where}: taps")
            _need((step.kernel, step.stride) == ((3, 3), (1, 1)), f"{where}: its geometry")
    elif step.kind == "depthwise":
        _need(arrays["taps"].shape == (*step.kernel, channels), f"{where}: taps")
    elif step.kind == "average":
        _need(arrays["shares"].shape == step.out_shape[:2], f"{where}: shares")
