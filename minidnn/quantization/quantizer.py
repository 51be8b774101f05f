"""From a simplified program and codes for its values to a program on codes (docs/int8.md)."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from minidnn.kernels import int8
from minidnn.plan.compiler import Plan
from minidnn.plan.folding import join_filters
from minidnn.plan.program import Codes, Program, Step
from minidnn.plan.table import columns_of, repeated
from minidnn.tensor import Array

# The largest factor from a unit of a sum to a code: beyond it the vectors' rounding overflows.
LARGEST_FACTOR = 0.999


@dataclass(frozen=True)
class Quantised:
    """A program on codes.

    Attributes
    ----------
    program : Program
    values : dict of int to int
        Value of the program in float32 -> the same value here, as codes where it has them.
    on_codes : frozenset of int
        Steps of the program in float32 that run on codes here.
    """

    program: Program
    values: dict[int, int]
    on_codes: frozenset[int]

    def plan(self) -> Plan:
        """Return what runs it: filters join the products after them."""
        steps = [
            replace(s, arrays=dict(s.arrays), labels=list(s.labels)) for s in self.program.steps
        ]
        return Plan(join_filters(replace(self.program, steps=steps)))


def quantise(
    program: Program,
    codes: Mapping[int, Codes],
    *,
    per_layer: bool = False,
    keep: Collection[int] = (),
) -> Quantised:
    """Return a program whose steps compute on codes wherever there is a loop for it.

    Between steps on codes and others the numbers are quantised and dequantised.

    Parameters
    ----------
    program : Program
        Simplified (`minidnn.plan.folding.simplify`): filters are steps of their own.
    codes : mapping of int to Codes
        For every value of the program.
    per_layer : bool
        One scale for all weights of a layer, as Vanhoucke et al. 2011, instead of one per
        output channel.
    keep : collection of int
        Steps, by their number, that stay float32.

    Warns
    -----
    UserWarning
        If a step's sums could leave int32, so that it stays float32.

    Raises
    ------
    InputError
        If a weight is NaN or infinite.
    """
    kept = set(keep)
    while True:
        try:
            return _Quantising(program, codes, per_layer).run(frozenset(kept))
        except _TooLargeError as error:
            step = program.steps[error.step]
            kept.add(error.step)
            warnings.warn(
                f"quantize: {step.labels[0]} stays float32: {error.__cause__}", stacklevel=2
            )


class _TooLargeError(Exception):
    """A step's sums could leave int32."""

    def __init__(self, step: int) -> None:
        super().__init__(step)
        self.step = step


class _Quantising:
    """The program on codes so far, and where each value of the old one is found in it."""

    def __init__(self, old: Program, codes: Mapping[int, Codes], per_layer: bool) -> None:
        self.old, self.codes, self.per_layer = old, dict(codes), per_layer
        self.new = Program(input=0, input_shape=old.input_shape)
        self.as_float: dict[int, int] = {old.input: self.value(old.sizes[old.input])}
        self.as_codes: dict[int, int] = {}

    def run(self, keep: frozenset[int]) -> Quantised:
        """Add every step, then the outputs, which are float32."""
        steps = self.old.steps
        chosen = {id(s) for i, s in enumerate(steps) if i not in keep and on_codes(s)}
        for i, step in enumerate(steps):
            if id(step) not in chosen:
                self.copy(step)
                continue
            try:
                self.add(step, chosen)
            except int8.SumError as error:
                raise _TooLargeError(i) from error
        self.new.outputs = [(self.real(v, None), shape) for v, shape in self.old.outputs]
        coded = frozenset(i for i, step in enumerate(steps) if id(step) in chosen)
        return Quantised(self.new, {**self.as_float, **self.as_codes}, coded)

    def value(self, size: int, codes: Codes | None = None) -> int:
        """Add a value; return its number."""
        self.new.sizes.append(size)
        number = len(self.new.sizes) - 1
        if codes is not None:
            self.new.codes[number] = codes
        return number

    def copy(self, step: Step) -> None:
        """Add a step that stays float32."""
        inputs = [None if v is None else self.real(v, step) for v in step.inputs]
        if step.output not in self.as_float:  # several steps may write parts of one value
            self.as_float[step.output] = self.value(self.old.sizes[step.output])
        self.new.steps.append(replace(step, inputs=inputs, output=self.as_float[step.output]))

    def real(self, value: int, reader: Step | None) -> int:
        """Return a value as float32, dequantised where there are only codes."""
        if value not in self.as_float:
            codes = self.codes[value]
            self.as_float[value] = self.value(self.old.sizes[value])
            self.convert("dequantize", value, reader, codes)
        return self.as_float[value]

    def coded(self, value: int, reader: Step) -> int:
        """Return a value as codes, quantised where there are only float32 numbers."""
        if value not in self.as_codes:
            codes = self.codes[value]
            self.as_codes[value] = self.value(self.old.sizes[value], codes)
            self.convert("quantize", value, reader, codes)
        return self.as_codes[value]

    def convert(self, kind: str, value: int, reader: Step | None, codes: Codes) -> None:
        """Add a step between the two forms of a value."""
        pair = self.as_float[value], self.as_codes[value]
        source, target = pair if kind == "quantize" else pair[::-1]
        shape = (1, 1, self.old.sizes[value])
        self.new.steps.append(
            Step(
                kind,
                [source],
                target,
                shape,
                shape,
                [reader.labels[0] if reader else "output"],
                arrays={"scale": np.full(1, codes.scale, np.float32)},
                zeros=(codes.zero, 0, codes.zero),
            )
        )

    def add(self, step: Step, chosen: Collection[int]) -> None:
        """Add a step on codes."""
        inputs = [value for value in step.inputs if value is not None]
        sources = [self.coded(value, step) for value in inputs]
        seen = [self.codes[value] for value in inputs]
        readers = [id(s) for s in self.old.steps if step.output in s.inputs]
        wanted = any(reader in chosen for reader in readers)
        real = not wanted and step.kind in ("convolve", "average") and step.pool == 1
        if step.kind == "largest":
            self.codes[step.output] = seen[0]
        arrays, out = self.arrays(step, seen, None if real else step.output)
        size = self.old.sizes[step.output]
        target = self.value(size, out)
        (self.as_float if real else self.as_codes)[step.output] = target
        zeros = seen[0].zero, seen[-1].zero, 0 if out is None else out.zero
        step = replace(step, inputs=[*sources], output=target, arrays=arrays, zeros=zeros)
        if step.kind == "scale":  # a depthwise convolution of one tap
            pixels = step.shape[0] * step.shape[1] * step.shape[2] // arrays["bias"].size
            shape = (1, pixels, arrays["bias"].size)
            step = replace(step, kind="depthwise", shape=shape, out_shape=shape)
        self.new.steps.append(replace(step, kind=f"int8_{step.kind}"))

    def arrays(
        self, step: Step, seen: Sequence[Codes], output: int | None
    ) -> tuple[dict[str, Array], Codes | None]:
        """Return a step's integers and factors, and the codes of its output."""
        out = None if output is None else self.codes[output]
        if step.kind == "largest":
            return {}, out
        if step.kind == "average":
            sums: Any = np.full(1, seen[0].scale / (step.shape[0] * step.shape[1]))
            found: dict[str, Array] = {}
        elif step.kind == "add":
            sums = np.array([one.scale for one in seen])
            slope = repeated(step, "slope", 1.0, columns_of(step))
            found = {"slope": slope.astype(np.float32)}
        else:
            weights, scales = self.weights(step)
            sums = seen[0].scale * scales.astype(np.float64)
            bias, slope = (
                repeated(step, name, without, len(scales))
                for name, without in (("bias", 0.0), ("slope", 1.0))
            )
            found = {
                "taps" if step.kind != "convolve" else "matrix": weights,
                "bias": int8.quantise_bias(bias, weights, seen[0].zero, sums),
                "slope": slope.astype(np.float32),
            }
        if out is not None:
            assert output is not None
            if "bias" in found:
                out = self.codes[output] = _wide_enough(out, sums, found["slope"])
            sums = sums / out.scale
        return {**found, "scale": sums.astype(np.float32)}, out

    def weights(self, step: Step) -> tuple[Array, Array]:
        """Return a step's weights as integers, and their scales."""
        if step.kind == "scale":
            w = repeated(step, "factor", 1.0, columns_of(step)).reshape(1, 1, -1)
        else:
            w = step.arrays["matrix" if step.kind == "convolve" else "taps"]
        w = np.asarray(w, np.float32)
        if not self.per_layer:
            return int8.quantise_weights(w)
        integers, scale = int8.quantise_weights(w.reshape(-1, 1))
        return integers.reshape(w.shape), np.repeat(scale, w.shape[-1])


def _wide_enough(out: Codes, sums: Array, slope: Array) -> Codes:
    """Return codes with steps no finer than what one unit of a sum stands for."""
    steepest = sums * np.maximum(1, np.abs(slope))
    least = float(steepest.max()) / LARGEST_FACTOR
    return out if out.scale >= least else Codes(float(np.float32(least)), out.zero)


def on_codes(step: Step) -> bool:
    """Tell whether there is a loop on codes for a step of a simplified program."""
    if step.kind == "convolve":
        return step.groups == 1 and step.to == 0 and step.channels == step.out_shape[2]
    if step.kind == "average":
        whole = step.kernel == step.shape[:2] and step.out_shape[:2] == (1, 1)
        shares = step.arrays["shares"]
        return whole and bool(np.allclose(shares, 1 / (step.shape[0] * step.shape[1])))
    if step.kind == "scale":
        return all(columns_of(step) % array.size == 0 for array in step.arrays.values())
    return step.kind in ("depthwise", "largest", "add")
