"""A compiled model as one file: safetensors with the steps as JSON, and no pickle.

Weights are stored as the model has them after folding, not as some CPU's loops read them: they
are laid out when the file is loaded, so it runs on every CPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from minidnn import checkpoint
from minidnn.errors import CheckpointError, GraphError
from minidnn.plan.checking import check
from minidnn.plan.compiler import Plan
from minidnn.plan.program import Codes, Program, Step
from minidnn.tensor import Array

MARK = "minidnn plan 2"
SUFFIX = ".minidnn"
# What JSON holds of a step; arrays lie beside it.
PAIRS = ("kernel", "stride", "dilation", "start")
TRIPLES = ("shape", "out_shape", "zeros")
PLAIN = ("kind", "inputs", "output", "labels", "pool", "to", "total", "repeat", "macs")


@dataclass(frozen=True)
class Saved:
    """What a file holds: a plan, and what it was saved with.

    Attributes
    ----------
    plan : Plan
    info : dict
        Classes, normalisation, where the weights came from.
    """

    plan: Plan
    info: dict[str, Any] = field(default_factory=dict)


def save(path: Path, plan: Plan, info: Mapping[str, Any]) -> None:
    """Write a plan, whole or not at all.

    Parameters
    ----------
    path : Path
    plan : Plan
    info : mapping
        Anything JSON can hold.

    Raises
    ------
    GraphError
        If a step is an op of its own: a file holds no code.
    CheckpointError
        If the disk is full or cannot be written to.
    """
    program, steps = plan.program, []
    arrays: dict[str, Array] = {}
    for i, step in enumerate(program.steps):
        if step.op is not None:
            raise GraphError(
                f"{path}: the op {step.op.name!r} of {step.labels[0]} has no compiled step, and a "
                "file holds no code; keep the plan in memory, or leave the op out"
            )
        names = sorted(step.arrays)
        arrays |= {f"{i}.{name}": _stored(step.arrays[name]) for name in names}
        values = {name: getattr(step, name) for name in (*PLAIN, *PAIRS, *TRIPLES)}
        steps.append({**values, "arrays": names})
    described = {
        "sizes": program.sizes,
        "steps": steps,
        "input": program.input,
        "input_shape": program.input_shape,
        "outputs": program.outputs,
        "codes": {str(value): asdict(codes) for value, codes in program.codes.items()},
        "info": dict(info),
    }
    checkpoint.save(path, arrays, described, mark=MARK)


def load(path: Path) -> Saved:
    """Read a plan.

    Raises
    ------
    CheckpointError
        If the file is missing, truncated, damaged, or no plan of this version.
    """
    found = checkpoint.read(path, MARK)
    try:
        steps = [_step(i, values, found.arrays) for i, values in enumerate(found.info["steps"])]
        outputs = [(int(value), tuple(shape)) for value, shape in found.info["outputs"]]
        program = Program(
            [int(size) for size in found.info["sizes"]],
            steps,
            int(found.info["input"]),
            tuple(found.info["input_shape"]),
            outputs,
            {
                int(value): Codes(float(codes["scale"]), int(codes["zero"]))
                for value, codes in found.info["codes"].items()
            },
        )
        check(program)
        return Saved(Plan(program), dict(found.info["info"]))
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise CheckpointError(f"{path}: no plan: {type(error).__name__}: {error}") from error


def _stored(array: Array) -> Array:
    """Return numbers as a file holds them: integers as they are, all others as float32."""
    return array if array.dtype.kind == "i" else array.astype(np.float32)


def _step(i: int, values: Mapping[str, Any], arrays: Mapping[str, Any]) -> Step:
    shapes: dict[str, Any] = {name: tuple(values[name]) for name in (*PAIRS, *TRIPLES)}
    plain = {name: values[name] for name in PLAIN}
    return Step(
        **plain, **shapes, arrays={name: arrays[f"{i}.{name}"] for name in values["arrays"]}
    )
