"""Even out the ranges of a value's channels, which share one scale, without changing the network.

A value's channels have one scale and one zero point; a channel of a small range gets few of the
codes. If channel c of a step's output is multiplied by a positive factor and the next step's
weights for it are divided by that factor, what comes out is the same: PReLU and max-pooling
commute with positive factors (Nagel et al. 2019, arXiv:1906.04721, "cross-layer equalisation").

The producer's weights have a scale per output channel, so its factor costs nothing. Nor does
the consumer's if that is a depthwise convolution: all channels can then have the same range. In
a matrix the factors are those of rows, which share their columns' scales; there rows and
ranges meet half way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from minidnn.plan.program import Program, Step
from minidnn.tensor import Array

# Factors beyond which a channel is as good as dead: it should not stretch others' ranges.
MOST = 1e4
ENDINGS = ("convolve", "depthwise", "scale")


def equalise(program: Program, ranges: Mapping[int, tuple[Array, Array]]) -> Program:
    """Return a program that computes the same outputs, with more even channels inside.

    Parameters
    ----------
    program : Program
        Simplified; it is not changed.
    ranges : mapping of int to (ndarray of shape (C,), ndarray of shape (C,))
        The least and greatest number of every channel of a value.
    """
    steps = [replace(step, arrays=dict(step.arrays)) for step in program.steps]
    new = replace(program, steps=steps)
    readers = new.readers()
    for step in steps:
        reader = new.only_reader(step.output, readers)
        if reader is None or not _fit(step, reader):
            continue
        low, high = (np.asarray(end, np.float64) for end in ranges[step.output])
        factors = _factors(high - low, reader)
        _scale_outputs(step, factors)
        _scale_inputs(reader, 1 / factors)
    return new


def _fit(step: Step, reader: Step) -> bool:
    channels = step.out_shape[2]
    return (
        step.kind in ENDINGS
        and step.groups == 1
        and step.channels == channels == reader.shape[2]
        and all(array.size == channels for name, array in step.arrays.items() if array.ndim == 1)
        and (reader.kind == "depthwise" or (reader.kind == "convolve" and reader.groups == 1))
    )


def _factors(widths: Array, reader: Step) -> Array:
    """Return what to multiply channels with, from the widths of their ranges."""
    wanted = 1 / np.where(widths > 0, widths, np.inf)
    if reader.kind == "convolve":
        matrix = np.abs(reader.arrays["matrix"].reshape(-1, len(widths), reader.out_shape[2]))
        columns = matrix.max(axis=(0, 1))
        rows = (matrix / np.where(columns > 0, columns, 1)).max(axis=(0, 2))
        wanted = np.sqrt(rows * wanted)
    largest = wanted.max(initial=0)
    if largest == 0:
        return np.ones(len(widths))
    middle = np.median(wanted[wanted > 0])
    return np.where(wanted > 0, np.clip(wanted / middle, 1 / MOST, MOST), 1)


def _scale_outputs(step: Step, factors: Array) -> None:
    """Multiply what a step computes, channel by channel."""
    if step.kind == "scale" and "factor" not in step.arrays:
        step.arrays["factor"] = np.ones(len(factors))
    for name in ("matrix", "taps", "factor", "bias"):
        if name in step.arrays:
            step.arrays[name] = step.arrays[name].astype(np.float64) * factors


def _scale_inputs(step: Step, factors: Array) -> None:
    """Multiply the weights that meet each channel."""
    if step.kind == "depthwise":
        step.arrays["taps"] = step.arrays["taps"].astype(np.float64) * factors
    else:
        matrix = step.arrays["matrix"].astype(np.float64)
        parts = matrix.reshape(-1, len(factors), matrix.shape[1]) * factors[:, None]
        step.arrays["matrix"] = parts.reshape(matrix.shape)
