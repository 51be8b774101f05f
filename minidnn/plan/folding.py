"""Joins steps of a program wherever the result is the same to rounding."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from minidnn.plan.program import Program, Step
from minidnn.tensor import Array

# Steps whose loops end with a number added and PReLU.
ENDINGS = ("convolve", "depthwise", "scale", "add")


def fold(program: Program) -> Program:
    """Join what can be joined, in place: affine maps and activations, pools, filters."""
    return join_filters(simplify(program))


def join_filters(program: Program) -> Program:
    """Let products fetch their rows through the filters before them, in place."""
    _join(program, _filter_into)
    return program


def simplify(program: Program) -> Program:
    """Join affine maps, activations and pools, in place; filters stay steps of their own."""
    _join(program, _scale_into)
    _join(program, _pool_into)
    return program


def _join(program: Program, join: Callable[[Step, Step], bool]) -> None:
    """Let `join(before, after)` take a step into the one whose output it alone reads."""
    makers = {step.output: step for step in program.steps if step.kind != "copy"}
    readers, kept = program.readers(), []
    for step in program.steps:
        value = step.inputs[0]
        before = makers.get(value) if value is not None and len(step.inputs) == 1 else None
        alone = value is not None and program.only_reader(value, readers) is step
        if before is None or not alone or not join(before, step):
            kept.append(step)
            continue
        before.output = step.output
        before.labels = [*before.labels, *step.labels]
        before.macs += step.macs
        makers[step.output] = before
    program.steps = kept


def _per_channel(step: Step) -> bool:
    channels = step.out_shape[2]
    return all(array.size == channels for array in step.arrays.values())


def _scale_into(before: Step, after: Step) -> bool:
    """Fold x * factor + bias into weights, and give a step its activation."""
    if after.kind != "scale" or before.kind not in ENDINGS or "slope" in before.arrays:
        return False
    if before.out_shape != after.shape and before.kind != "scale":
        return False
    if before.kind != "scale" and not _per_channel(after):
        return False
    affine = "factor" in after.arrays
    if affine and before.kind == "add":
        return False
    if before.kind == "scale" and not _same_period(before, after):
        return False
    if affine:
        _fold_affine(before, after.arrays["factor"], after.arrays["bias"])
    if "slope" in after.arrays:
        before.arrays["slope"] = after.arrays["slope"]
    return True


def _same_period(before: Step, after: Step) -> bool:
    """Bring what two scales have per column to the longer one's length."""
    sizes = {array.size for step in (before, after) for array in step.arrays.values()}
    longest = max(sizes)
    if any(longest % size for size in sizes):
        return False
    for name, array in before.arrays.items():
        before.arrays[name] = np.tile(array, longest // array.size)
    return True


def _fold_affine(step: Step, factor: Array, shift: Array) -> None:
    """Let a step compute y * factor + shift in place of y; float64 until all is folded."""
    for name in ("matrix", "taps", "factor"):
        if name in step.arrays and not (name == "taps" and "matrix" in step.arrays):
            array = step.arrays[name].astype(np.float64)
            if array.ndim == 3 and name == "matrix":  # groups, each with its own columns
                step.arrays[name] = array * factor.reshape(len(array), 1, -1)
            else:
                step.arrays[name] = array * factor
    bias = step.arrays.get("bias")
    step.arrays["bias"] = shift if bias is None else bias.astype(np.float64) * factor + shift


def _filter_into(before: Step, after: Step) -> bool:
    """Let a pointwise product fetch its rows through the 3x3 depthwise convolution before it."""
    if not after.is_pointwise or (before.kernel, before.stride) != ((3, 3), (1, 1)):
        return False
    if before.kind == "int8_depthwise":
        names = {"taps": "taps"} | {name: f"taps_{name}" for name in ("bias", "scale", "slope")}
        before.arrays = {names[name]: array for name, array in before.arrays.items()}
        before.zeros = before.zeros[0], *after.zeros[::2]
    elif before.kind != "depthwise" or "slope" in before.arrays:
        return False
    else:
        bias = before.arrays.pop("bias", None)
        if bias is not None:
            more = bias @ after.arrays["matrix"].astype(np.float64)
            after.arrays["bias"] = more + after.arrays.get("bias", 0)
    before.kind, before.out_shape, before.pool = after.kind, after.out_shape, after.pool
    before.arrays |= after.arrays
    return True


def _pool_into(before: Step, after: Step) -> bool:
    """Let a product keep the largest of each window alone."""
    size = after.kernel[0]
    if before.kind != "convolve" or after.kind != "largest" or before.pool > 1:
        return False
    if before.groups > 1 or size < 2 or after.start != (0, 0):
        return False
    if not after.kernel == after.stride == (size, size):
        return False
    kept = before.out_shape[0] // size, before.out_shape[1] // size
    if after.out_shape[:2] != kept or 0 in kept:  # windows over the edge, in ceil mode
        return False
    before.pool = size
    return True
