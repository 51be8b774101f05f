"""What every ladder is timed on: QuickNet's shapes, at a small batch.

One entry per ladder of `REGISTRY`; a bench fails where one is missing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bench.shapes import (
    ACTIVATION,
    CLASSES,
    DEPTHWISE,
    GLOBAL_AVG_POOL,
    IMAGE,
    POINTWISE,
    STEM_CHANNELS,
    STEM_KERNEL,
)

BATCH = 8


@dataclass(frozen=True)
class Workload:
    """One call of a ladder.

    Attributes
    ----------
    label : str
        Shows in the bench's name.
    args : callable
        ``args(rng)`` returns the positional arguments, float arrays as float64; the bench casts.
    settings : dict
        Keyword arguments.
    macs : int
        Multiply-accumulates; 0 where memory traffic is what counts.
    terms : int
        How many values are summed into one element of the result, for the tolerance.
    in_place : tuple of int
        Positions of the arguments that are written.
    """

    label: str
    args: Callable[[np.random.Generator], tuple[Any, ...]]
    settings: dict[str, Any] = field(default_factory=dict)
    macs: int = 0
    terms: int = 1
    in_place: tuple[int, ...] = ()


def normal(*shapes: tuple[int, ...]) -> Callable[[np.random.Generator], tuple[Any, ...]]:
    """Return what draws one array per shape."""
    return lambda rng: tuple(rng.standard_normal(shape) for shape in shapes)


WORKLOADS: dict[str, list[Workload]] = {}

# --- convolutions and matrix products --------------------------------------------------

_out = IMAGE.size - STEM_KERNEL + 1
_stem_x = (BATCH, IMAGE.size, IMAGE.size, IMAGE.channels)
_stem_w = (STEM_KERNEL, STEM_KERNEL, IMAGE.channels, STEM_CHANNELS)
_stem_y = (BATCH, _out, _out, STEM_CHANNELS)
_conv = {"stride": (1, 1), "pads": (0, 0, 0, 0), "dilation": (1, 1), "groups": 1}
_stem_macs = int(np.prod(_stem_y)) * STEM_KERNEL**2 * IMAGE.channels
WORKLOADS["conv2d.forward"] = [
    Workload("stem", normal(_stem_x, _stem_w), _conv, _stem_macs, STEM_KERNEL**2 * 3)
]
WORKLOADS["conv2d.backward_input"] = [
    Workload(
        "stem",
        normal(_stem_y, _stem_w),
        {**_conv, "size": _stem_x[1:3]},
        _stem_macs,
        STEM_KERNEL**2 * STEM_CHANNELS,
    )
]
WORKLOADS["conv2d.backward_weight"] = [
    Workload(
        "stem",
        normal(_stem_y, _stem_x),
        {**_conv, "kernel_size": _stem_w[:2]},
        _stem_macs,
        BATCH * _out * _out,
    )
]

for _map in (DEPTHWISE[1], DEPTHWISE[5]):
    _x = (BATCH, _map.size, _map.size, _map.channels)
    _w = (3, 3, _map.channels)
    _same = {"stride": (1, 1), "pads": (1, 1, 1, 1)}
    _macs = int(np.prod(_x)) * 9
    _label = f"{_map.size}x{_map.size}x{_map.channels}"
    WORKLOADS.setdefault("depthwise.forward", []).append(
        Workload(_label, normal(_x, _w), _same, _macs, 9)
    )
    WORKLOADS.setdefault("depthwise.backward", []).append(
        Workload(_label, normal(_x, _x, _w), _same, 2 * _macs, BATCH * _map.size**2)
    )

for _p in (POINTWISE[1], POINTWISE[5]):
    _m = BATCH * _p.size**2
    _macs = _m * _p.c_in * _p.c_out
    _label = f"{_p.size}x{_p.size}x{_p.c_in}->{_p.c_out}"
    _inner = (BATCH, _p.size, _p.size)
    _in, _matrix, _product = (*_inner, _p.c_in), (_p.c_in, _p.c_out), (*_inner, _p.c_out)
    WORKLOADS.setdefault("pointwise.forward", []).append(
        Workload(_label, normal(_in, _matrix), macs=_macs, terms=_p.c_in)
    )
    WORKLOADS.setdefault("pointwise.backward_input", []).append(
        Workload(_label, normal(_product, _matrix), macs=_macs, terms=_p.c_out)
    )
    WORKLOADS.setdefault("pointwise.backward_weight", []).append(
        Workload(_label, normal(_product, _in), macs=_macs, terms=_m)
    )
    WORKLOADS.setdefault("pointwise.forward_bias_prelu", []).append(
        Workload(
            _label,
            normal(_in, _matrix, (_p.c_out,), (_p.c_out,)),
            macs=_macs,
            terms=_p.c_in,
        )
    )
    WORKLOADS.setdefault("pointwise.forward_moments", []).append(
        Workload(_label, normal(_in, _matrix), macs=_macs, terms=_m)
    )
    for _name, _shapes, _terms in (
        ("nn", ((_m, _p.c_in), (_p.c_in, _p.c_out)), _p.c_in),
        ("nt", ((_m, _p.c_out), (_p.c_in, _p.c_out)), _p.c_out),
        ("tn", ((_m, _p.c_in), (_m, _p.c_out)), _m),
    ):
        WORKLOADS.setdefault(f"gemm.{_name}", []).append(
            Workload(_label, normal(*_shapes), macs=_macs, terms=_terms)
        )

_head = GLOBAL_AVG_POOL.channels
_macs = BATCH * _head * CLASSES
WORKLOADS["linear.forward"] = [
    Workload("head", normal((BATCH, _head), (_head, CLASSES)), macs=_macs, terms=_head)
]
WORKLOADS["linear.backward_input"] = [
    Workload("head", normal((BATCH, CLASSES), (_head, CLASSES)), macs=_macs, terms=CLASSES)
]
WORKLOADS["linear.backward_weight"] = [
    Workload("head", normal((BATCH, CLASSES), (BATCH, _head)), macs=_macs, terms=BATCH)
]

# --- one pass over memory ---------------------------------------------------------------

_first = ACTIVATION[1]
_x = (BATCH, _first.size, _first.size, _first.channels)
_c = (_first.channels,)
_rows = BATCH * _first.size**2
_label = f"{_first.size}x{_first.size}x{_first.channels}"


def _statistics(rng: np.random.Generator) -> tuple[Any, ...]:
    """Draw dy, x, gamma and x's own mean and variance."""
    dy, x, gamma = normal(_x, _x, _c)(rng)
    return dy, x, gamma, x.mean(axis=(0, 1, 2)), x.var(axis=(0, 1, 2))


def _given(rng: np.random.Generator) -> tuple[Any, ...]:
    """Draw x, gamma, beta and positive variances."""
    x, gamma, beta, mean, var = normal(_x, _c, _c, _c, _c)(rng)
    return x, gamma, beta, mean, var**2 + 0.5


def _activated(rng: np.random.Generator) -> tuple[Any, ...]:
    """Draw dy, x, gamma, beta, slope and x's own mean and variance."""
    dy, x, gamma, mean, var = _statistics(rng)
    return dy, x, gamma, *normal(_c, _c)(rng), mean, var


_EPS = {"eps": 1e-5}
WORKLOADS |= {
    "bias.forward": [Workload(_label, normal(_x, _c))],
    "bias.backward": [Workload(_label, normal(_x), terms=_rows)],
    "prelu.forward": [Workload(_label, normal(_x, _c))],
    "prelu.backward": [Workload(_label, normal(_x, _x, _c), terms=_rows)],
    "relu.forward": [Workload(_label, normal(_x))],
    "relu.backward": [Workload(_label, normal(_x, _x))],
    "leaky_relu.forward": [Workload(_label, normal(_x), {"slope": 0.1})],
    "leaky_relu.backward": [Workload(_label, normal(_x, _x), {"slope": 0.1})],
    "batchnorm.forward": [Workload(_label, normal(_x, _c, _c), _EPS, terms=_rows)],
    "batchnorm.inference": [Workload(_label, _given, _EPS, terms=4)],
    "batchnorm.backward": [Workload(_label, _statistics, _EPS, terms=_rows)],
    "batchnorm_prelu.forward": [Workload(_label, normal(_x, _c, _c, _c), _EPS, terms=_rows)],
    "batchnorm_prelu.backward": [Workload(_label, _activated, _EPS, terms=_rows)],
    "batchnorm.inference_backward": [Workload(_label, _statistics, _EPS, terms=_rows)],
}

# --- a block: batch norm, PReLU, depthwise and pointwise convolution ------------------------

_matrix = (_first.channels, _first.channels)


def _block(rng: np.random.Generator) -> tuple[Any, ...]:
    """Draw dy, x, d, and what else forward and backward take."""
    dy, *given = _activated(rng)
    x, gamma, beta, slope, mean, var = given
    d, w, matrix = normal(_x, (3, 3, *_c), _matrix)(rng)
    return dy, x, d, gamma, beta, slope, mean, var, w, matrix


def _pick(block: tuple[Any, ...]) -> tuple[Any, ...]:
    """Leave out dy and d."""
    return block[1], *block[3:]


_block_macs = int(np.prod(_x)) * (9 + _first.channels)
_block_settings = {**_EPS, "pads": (1, 1, 1, 1)}
WORKLOADS |= {
    "separable.forward": [
        Workload(_label, lambda rng: _pick(_block(rng)), _block_settings, _block_macs, _rows)
    ],
    "separable.backward": [Workload(_label, _block, _block_settings, 3 * _block_macs, _rows)],
}

# --- pooling, dropout, loss -------------------------------------------------------------

_half = (BATCH, _first.size // 2, _first.size // 2, _first.channels)
_two = {"size": (2, 2), "stride": (2, 2), "pads": (0, 0, 0, 0), "ceil_mode": False}
_gap = (BATCH, GLOBAL_AVG_POOL.size, GLOBAL_AVG_POOL.size, _head)


def _winners(rng: np.random.Generator) -> tuple[Any, ...]:
    return rng.standard_normal(_half), rng.integers(0, 4, _half).astype(np.uint8)


def _kept(rng: np.random.Generator) -> tuple[Any, ...]:
    return rng.standard_normal((BATCH, _head)), rng.integers(0, 2, (BATCH, _head)).astype(np.uint8)


def _labelled(rng: np.random.Generator) -> tuple[Any, ...]:
    return rng.standard_normal((BATCH, CLASSES)), rng.integers(0, CLASSES, BATCH)


def _predicted(rng: np.random.Generator) -> tuple[Any, ...]:
    odds = np.exp(rng.standard_normal((BATCH, CLASSES)))
    probs = odds / odds.sum(axis=1, keepdims=True)
    return np.array(1.0), probs, rng.integers(0, CLASSES, BATCH)


def _won(rng: np.random.Generator) -> tuple[Any, ...]:
    """Draw dy and argmax of a 2x2 pool, and what stands in front of it."""
    return *_winners(rng), *_activated(rng)[1:]


_SMOOTH = {"label_smoothing": 0.1}
_AVERAGE = {**_two, "count_include_pad": True}
WORKLOADS |= {
    "max_pool.forward": [Workload(_label, normal(_x), _two)],
    "max_pool.backward": [Workload(_label, _winners, {**_two, "x_shape": _x})],
    "batchnorm_prelu_max_pool.forward": [
        Workload(_label, lambda rng: _activated(rng)[1:], {**_EPS, **_two}, terms=4)
    ],
    "batchnorm_prelu_max_pool.backward": [Workload(_label, _won, {**_EPS, **_two}, terms=_rows)],
    "avg_pool.forward": [Workload(_label, normal(_x), _AVERAGE, terms=4)],
    "avg_pool.backward": [Workload(_label, normal(_half), {**_AVERAGE, "x_shape": _x}, terms=4)],
    "global_avg_pool.forward": [Workload("head", normal(_gap), terms=9)],
    "global_avg_pool.backward": [Workload("head", normal((BATCH, _head)), {"x_shape": _gap})],
    "dropout.forward": [
        Workload("head", normal((BATCH, _head)), {"p": 0.5, "seed": 1, "offset": 0})
    ],
    "dropout.backward": [Workload("head", _kept, {"p": 0.5})],
    "softmax_xent.forward": [Workload("head", _labelled, _SMOOTH, terms=CLASSES * BATCH)],
    "softmax_xent.backward": [Workload("head", _predicted, _SMOOTH, terms=CLASSES)],
}

# --- optimisers and data: QuickNet's 3.6 million parameters, a batch of pictures ----------

_n = (3_557_322,)
_decay = {"weight_decay": 5e-4}


def _squares(place: int) -> Callable[[np.random.Generator], tuple[Any, ...]]:
    """Draw w, g and two arrays of state, the one at `place` not negative."""

    def args(rng: np.random.Generator) -> tuple[Any, ...]:
        arrays = list(normal(_n, _n, _n, _n)(rng))
        arrays[place] = arrays[place] ** 2
        return tuple(arrays)

    return args


def _pictures(rng: np.random.Generator) -> tuple[Any, ...]:
    images = rng.integers(0, 256, (BATCH, IMAGE.size, IMAGE.size, IMAGE.channels), dtype=np.uint8)
    pose = np.column_stack([rng.integers(-4, 5, (BATCH, 2)), rng.integers(0, 2, (BATCH, 3))])
    return images, np.arange(BATCH), pose, np.full(3, 0.5), np.full(3, 0.25)


WORKLOADS |= {
    "sgd.step": [
        Workload(
            "quicknet",
            normal(_n, _n, _n),
            {"lr": 0.1, "momentum": 0.9, "nesterov": True, **_decay},
            terms=4,
            in_place=(0, 2),
        )
    ],
    "adam.step": [
        Workload(
            "quicknet",
            _squares(3),
            {"lr": 1e-3, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "decoupled": True, "t": 7}
            | _decay,
            terms=8,
            in_place=(0, 2, 3),
        )
    ],
    "rmsprop.step": [
        Workload(
            "quicknet",
            _squares(2),
            {"lr": 1e-3, "alpha": 0.99, "eps": 1e-8, "momentum": 0.9, **_decay},
            terms=8,
            in_place=(0, 2, 3),
        )
    ],
    "square_sum.forward": [Workload("quicknet", normal(_n), terms=_n[0])],
    "augment.forward": [Workload("batch", _pictures, {"fill": "reflect", "cutout": 8}, terms=4)],
}
