"""Cases of batch normalisation."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.cases import CASES, Case, signed
from tests.oracles import norm as oracle

SHAPES = {
    "one_row": (1, 1, 1, 3),
    "two_rows_c1": (2, 1),
    "odd_c7": (2, 3, 5, 7),
    "c17": (3, 4, 4, 17),
    "c33_rows": (5, 33),
    "chunks_c16": (1100, 16),
    "block_and_one": (33, 5),
}
EPS = {"eps": 1e-3}


def _channels(rng: np.random.Generator, c: int) -> tuple[Any, Any]:
    return signed(rng, c) + 0.5, signed(rng, c)


def _forward(shape: tuple[int, ...], offset: float = 0.0) -> Any:
    def args(rng: np.random.Generator) -> tuple[Any, ...]:
        return signed(rng, *shape) + offset, *_channels(rng, shape[-1])

    return args


def _given(shape: tuple[int, ...], *, backward: bool) -> Any:
    """Statistics that are not x's own, as in inference."""

    def args(rng: np.random.Generator) -> tuple[Any, ...]:
        x, (gamma, beta) = signed(rng, *shape), _channels(rng, shape[-1])
        mean, var = signed(rng, shape[-1]), rng.random(shape[-1]) + 0.1
        return (
            (signed(rng, *shape), x, gamma, mean, var) if backward else (x, gamma, beta, mean, var)
        )

    return args


def _own(shape: tuple[int, ...]) -> Any:
    """The statistics of x itself, without which training's backward means nothing."""

    def args(rng: np.random.Generator) -> tuple[Any, ...]:
        x, (gamma, _) = signed(rng, *shape), _channels(rng, shape[-1])
        rows = x.reshape(-1, shape[-1])
        return signed(rng, *shape), x, gamma, rows.mean(axis=0), rows.var(axis=0)

    return args


CASES["batchnorm.forward"] = [
    Case(name, _forward(shape), oracle.batchnorm, terms=1100, settings=EPS)
    for name, shape in SHAPES.items()
] + [
    # The output's tolerance stays that of values around one: the mean must cost no bits.
    Case("mean_100", _forward((400, 5), 100.0), oracle.batchnorm, terms=400, settings=EPS)
]
CASES["batchnorm.inference"] = [
    Case(name, _given(shape, backward=False), oracle.inference, terms=4, settings=EPS)
    for name, shape in SHAPES.items()
]
CASES["batchnorm.backward"] = [
    Case(name, _own(shape), oracle.backward, terms=1100, settings=EPS)
    for name, shape in SHAPES.items()
    if name != "one_row"
]
CASES["batchnorm.inference_backward"] = [
    Case(name, _given(shape, backward=True), oracle.inference_backward, terms=1100, settings=EPS)
    for name, shape in SHAPES.items()
]


def _with_slope(
    shape: tuple[int, ...], slopes: int, *, backward: bool, value: float | None = None
) -> Any:
    def args(rng: np.random.Generator) -> tuple[Any, ...]:
        x, (gamma, beta), slope = (
            signed(rng, *shape),
            _channels(rng, shape[-1]),
            signed(rng, slopes) if value is None else np.full(slopes, value),
        )
        rows = x.reshape(-1, shape[-1])
        if not backward:
            return x, gamma, beta, slope
        mean, var = rows.mean(axis=0), rows.var(axis=0)
        return signed(rng, *shape), x, gamma, beta, slope, mean, var

    return args


FUSED: dict[str, tuple[tuple[int, ...], int, float | None]] = {
    name: (shape, shape[-1], None) for name, shape in SHAPES.items()
}
FUSED["one_slope"] = ((2, 3, 5, 7), 1, None)
# What ReLU, no activation, and leaky ReLU amount to.
for _name, _value in (("zero", 0.0), ("one", 1.0), ("negative", -0.5), ("leaky", 0.01)):
    FUSED[f"slope_{_name}"] = ((3, 4, 4, 17), 17, _value)
CASES["batchnorm_prelu.forward"] = [
    Case(
        name,
        _with_slope(shape, slopes, backward=False, value=value),
        oracle.batchnorm_prelu,
        terms=1100,
        settings=EPS,
    )
    for name, (shape, slopes, value) in FUSED.items()
]
CASES["batchnorm_prelu.backward"] = [
    Case(
        name,
        _with_slope(shape, slopes, backward=True, value=value),
        oracle.batchnorm_prelu_backward,
        terms=1100,
        settings=EPS,
    )
    for name, (shape, slopes, value) in FUSED.items()
    if name != "one_row"
]
