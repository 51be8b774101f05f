"""Compare what a submission returned with the ladder's answers and with finite differences."""

from __future__ import annotations

from typing import Any

import numpy as np

from minidnn.measure.exercises.catalogue import GRADIENT_CHECK, Case, Exercise
from minidnn.measure.exercises.runner import Answer
from minidnn.tensor import Array

ROOM = 32  # roundings, times the square root of the terms of a sum
STEP = 1e-6  # of a finite difference
DIRECTIONS = 3


def wanted(exercise: Exercise, args: Any, settings: dict[str, Any]) -> list[Array]:
    """Return the right answer in float64."""
    exact = [np.asarray(a, np.float64) for a in args]
    with np.errstate(all="ignore"):
        result = exercise.rungs()["numpy"](*exact, **settings)
    return list(result) if isinstance(result, tuple) else [result]


def wrong(exercise: Exercise, case: Case, answer: Answer) -> str | None:
    """Return what is wrong with the answer to a case, None if nothing is."""
    record = answer.record
    if "error" in record:
        return str(record["error"])
    if record["changed"]:
        names = [name.strip() for name in exercise.signature.split(",")]
        return f"changes its argument {names[record['changed'][0]]}; work on a copy"
    want = wanted(exercise, case.args, case.settings)
    text = different(exercise, answer, want, case)
    if text is None and case.name == GRADIENT_CHECK:
        text = wrong_gradient(exercise, case, answer.arrays)
    return text


def different(exercise: Exercise, answer: Answer, want: list[Array], case: Case) -> str | None:
    """Compare kind, shape and dtype, then values."""
    returned = answer.record["returned"]
    names = ", ".join(exercise.returns)
    expected = names if len(want) == 1 else f"({names})"
    if "kind" in returned:
        return f"expected {expected} as arrays, got {returned['kind']}"
    if len(returned["arrays"]) != len(want) or returned["many"] != (len(want) > 1):
        number = len(returned["arrays"])
        return f"expected {expected}, got {'a tuple of ' * bool(returned['many'])}{number} array(s)"
    dtype = case.args[0].dtype
    for name, entry, w in zip(exercise.returns, returned["arrays"], want, strict=True):
        if tuple(entry["shape"]) != w.shape:
            return f"{name}: expected shape {w.shape}, got {tuple(entry['shape'])}"
        if entry["dtype"] != str(dtype):
            return f"{name}: expected {dtype} like the arguments, got {entry['dtype']}"
    first = case.args[0]
    terms = max(first.size // first.shape[-1], first.shape[-1])  # no sum has more
    for name, got, w in zip(exercise.returns, answer.arrays, want, strict=True):
        text = _unequal(got, w, terms)
        if text:
            return f"{name}{text}"
    return None


def _unequal(got: Array, want: Array, terms: int) -> str | None:
    """Return where and how far two arrays differ by more than rounding."""
    missing = np.isnan(want) & ~np.isnan(got)
    if missing.any():
        return f"{_at(missing)}: expected NaN, because NaN went in, got {got[missing][0]:.6g}"
    extra = ~np.isfinite(got) & np.isfinite(want)
    if extra.any():
        return f"{_at(extra)}: expected {want[extra][0]:.6g}, got {got[extra][0]}"
    known = np.isfinite(want)
    scale = np.abs(want[known]).max(initial=0.0)
    tolerance = ROOM * np.sqrt(terms) * np.finfo(got.dtype).eps * scale
    off = np.zeros(want.shape, bool)
    off[known] = np.abs(got[known] - want[known]) > tolerance
    if off.any():
        return (
            f"{_at(off)}: expected {want[off][0]:.6g}, got {got[off][0]:.6g} "
            f"({int(off.sum())} of {off.size} numbers are wrong)"
        )
    return None


def _at(where: Array) -> str:
    """Return the first place that is marked, as an index."""
    return "[" + ", ".join(map(str, np.argwhere(where)[0])) + "]"


def wrong_gradient(exercise: Exercise, case: Case, gradients: list[Array]) -> str | None:
    """Compare gradients with central differences of the forward pass, along random directions.

    With f(x) = sum(dy * y(x)), sum(u * dx) must equal (f(x + e u) - f(x - e u)) / 2e.
    """
    assert exercise.gradient is not None
    dy = case.args[0]
    inputs, forward = exercise.gradient(*case.args, **case.settings)
    rng = np.random.default_rng(0)

    def f(moved: list[Array]) -> Array:
        return np.asarray(dy * forward(*moved))

    for i, (name, dx) in enumerate(zip(exercise.returns, gradients, strict=True)):
        for _ in range(DIRECTIONS):
            u = rng.standard_normal(inputs[i].shape)
            above, below = (
                f([a + sign * STEP * u if j == i else a for j, a in enumerate(inputs)])
                for sign in (1, -1)
            )
            want = float((above.sum() - below.sum()) / (2 * STEP))
            got = float((u * dx).sum())
            rounding = 100 * np.finfo(np.float64).eps * float(np.abs(above).sum()) / STEP
            if not abs(got - want) <= 1e-5 * abs(want) + rounding:
                return (
                    f"{name}: a slope of {got:.8g} along a random direction, finite differences "
                    f"of the forward pass give {want:.8g}"
                )
    return None
