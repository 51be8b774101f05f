"""The file a student starts from."""

from __future__ import annotations

import textwrap
from pathlib import Path

from minidnn.errors import ConfigError
from minidnn.measure.exercises.catalogue import Exercise
from minidnn.measure.exercises.rules import MODULES

_STUB = '''\
"""Exercise {name}: fill in the function, then run

    minidnn exercise grade {file}

Shapes
{shapes}

Formula
{formula}

Hint
{hint}

Rules
    - Arrays are C-contiguous, float32 or float64; return new arrays of the same dtype.
    - Leave the arguments as they are. Where NaN goes in, NaN comes out.
    - You may import {modules}.
    - {forbidden}
    - Correct first. Then its speed is measured in turns with a rung of minidnn's
      {ladder}: `--against` names it, one of {rungs}.
"""

import numpy as np


def {name}({signature}):
    raise NotImplementedError("write {name} here")
'''


def text(exercise: Exercise, file: str) -> str:
    """Return the stub of an exercise that will be saved under a name."""
    allowed = sorted(MODULES - {"__future__"})
    if exercise.forbidden:
        names = textwrap.fill(", ".join(sorted(exercise.forbidden)), 80, subsequent_indent=" " * 6)
        also = "The operator @ and these" if "matmul" in exercise.forbidden else "These"
        forbidden = f"{also} names would be the answer and are not allowed:\n      {names}."
    else:
        forbidden = "All of NumPy's array functions may be used."
    return _STUB.format(
        name=exercise.name,
        file=file,
        signature=exercise.signature,
        shapes=textwrap.indent(exercise.shapes, "    "),
        formula=textwrap.indent(exercise.formula, "    "),
        hint=textwrap.indent(exercise.hint, "    "),
        modules=textwrap.fill(", ".join(allowed), 72, subsequent_indent=" " * 6),
        forbidden=forbidden,
        ladder=exercise.ladder,
        rungs=", ".join(exercise.rungs().rungs),
    )


def write(exercise: Exercise, path: Path) -> None:
    """Write the stub to a new file.

    Raises
    ------
    ConfigError
        If there is a file of that name: somebody's work may be in it.
    """
    stub = text(exercise, path.name)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(stub)
    except FileExistsError:
        raise ConfigError(f"{path} exists and is left alone; name another file with -o") from None
