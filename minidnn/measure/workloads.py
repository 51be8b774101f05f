"""What every ladder is measured on: arguments at a network's shapes, and the work in them.

One entry per ladder of `REGISTRY`; `bench/test_kernels.py` fails where one is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minidnn.measure.int8_work import calls
from minidnn.measure.shapes import CLASSES, STEM_KERNEL, Map, Pointwise, Shapes

Arguments = tuple[Any, ...]
Draw = Callable[[np.random.Generator], Arguments]
Named = Iterator[tuple[str, "Workload"]]


@dataclass(frozen=True)
class Workload:
    """One call of a ladder.

    Attributes
    ----------
    label : str
        Name in tables.
    args : callable
        ``args(rng)`` returns the positional arguments; see `drawn`.
    settings : dict
        Keyword arguments.
    macs : int
        Multiply-accumulates; 0 where memory traffic is what counts.
    terms : int
        How many values are summed into one element of the result, for the tolerance.
    in_place : tuple of int
        Positions of the arguments that are written.
    exact : bool
        One result is right, bit for bit, and float arguments are float32 in every precision.
    """

    label: str
    args: Draw
    settings: dict[str, Any] = field(default_factory=dict)
    macs: int = 0
    terms: int = 1
    in_place: tuple[int, ...] = ()
    exact: bool = False

    def drawn(self, dtype: Any = np.float32, seed: int = 3) -> list[Any]:
        """Draw the arguments; every precision starts from the same float32 numbers."""
        return [
            a.astype(np.float32, order="C", copy=False).astype(
                np.float32 if self.exact else dtype, copy=False
            )
            if isinstance(a, np.ndarray) and a.dtype.kind == "f"
            else a
            for a in self.args(np.random.default_rng(seed))
        ]

    def outputs(self, result: Any, args: list[Any]) -> list[Any]:
        """Return what a call with these arguments has computed, as a list of arrays."""
        if self.in_place:
            return [args[i] for i in self.in_place]
        return list(result) if isinstance(result, tuple) else [result]

    def least_bytes(self, args: list[Any], outputs: list[Any]) -> int:
        """Return the bytes a call moves at least: every input read once, every output written."""
        arrays = [a for a in [*args, *outputs] if isinstance(a, np.ndarray)]
        return sum(a.nbytes for a in arrays)


def workloads(shapes: Shapes, batch: int) -> dict[str, list[Workload]]:
    """Return, by ladder, calls at the shapes of a network."""
    found: dict[str, list[Workload]] = {}
    kinds = (
        _stem, _depthwise, _products, _linear, _passes, _blocks, _pools, _head, _updates, _int8
    )  # fmt: skip
    for kind in kinds:
        for name, work in kind(shapes, batch):
            found.setdefault(name, []).append(work)
    return found


def normal(*shapes: tuple[int, ...]) -> Draw:
    """Return what draws one array per shape."""
    return lambda rng: tuple(rng.standard_normal(shape, np.float32) for shape in shapes)


def _volume(*sizes: int) -> int:
    return int(np.prod(sizes, dtype=np.int64))


# --- convolutions and matrix products --------------------------------------------------


def _stem(shapes: Shapes, batch: int) -> Named:
    size, c_in = shapes.image.size, shapes.image.channels
    out, c_out, k = size - STEM_KERNEL + 1, shapes.stem_channels, STEM_KERNEL
    x, w, y = (batch, size, size, c_in), (k, k, c_in, c_out), (batch, out, out, c_out)
    yield from _convolution("stem", x, w, y, (0, 0, 0, 0))
    for p in shapes.full:
        x, y = (batch, p.size, p.size, p.c_in), (batch, p.size, p.size, p.c_out)
        yield from _convolution(p.label, x, (3, 3, p.c_in, p.c_out), y, (1, 1, 1, 1))


def _convolution(
    label: str, x: tuple[int, ...], w: tuple[int, ...], y: tuple[int, ...], pads: tuple[int, ...]
) -> Named:
    """Yield a full convolution x (N, H, W, Cin) with w (KH, KW, Cin, Cout) -> y, three ways."""
    conv: dict[str, Any] = {"stride": (1, 1), "pads": pads, "dilation": (1, 1), "groups": 1}
    taps, pixels = _volume(*w[:2]), _volume(*y[:3])
    macs = _volume(*y) * taps * x[3]
    yield "conv2d.forward", Workload(label, normal(x, w), conv, macs, taps * x[3])
    back = {**conv, "size": x[1:3]}
    yield "conv2d.backward_input", Workload(label, normal(y, w), back, macs, taps * y[3])
    back = {**conv, "kernel_size": w[:2]}
    yield "conv2d.backward_weight", Workload(label, normal(y, x), back, macs, pixels)


def _depthwise(shapes: Shapes, batch: int) -> Named:
    same = {"stride": (1, 1), "pads": (1, 1, 1, 1)}
    for m in shapes.depthwise:
        x, w = (batch, m.size, m.size, m.channels), (3, 3, m.channels)
        macs = 9 * _volume(*x)
        yield "depthwise.forward", Workload(m.label, normal(x, w), same, macs, 9)
        yield (
            "depthwise.backward",
            Workload(m.label, normal(x, x, w), same, 2 * macs, batch * m.size**2),
        )
        yield (
            "depthwise.backward_input",
            Workload(m.label, normal(x, w), {**same, "size": x[1:3]}, macs, 9),
        )
        yield (
            "depthwise.backward_weight",
            Workload(
                m.label, normal(x, x), {**same, "kernel_size": (3, 3)}, macs, batch * m.size**2
            ),
        )


def _products(shapes: Shapes, batch: int) -> Named:
    for p in shapes.pointwise:
        yield from _product(p, batch)


def _product(p: Pointwise, batch: int) -> Named:
    m, inner = batch * p.size**2, (batch, p.size, p.size)
    x, w, y, c = (*inner, p.c_in), (p.c_in, p.c_out), (*inner, p.c_out), (p.c_out,)
    macs = m * p.c_in * p.c_out
    rows_in, rows_out = (m, p.c_in), (m, p.c_out)
    for name, drawn, terms in (
        ("pointwise.forward", (x, w), p.c_in),
        ("pointwise.backward_input", (y, w), p.c_out),
        ("pointwise.backward_weight", (y, x), m),
        ("pointwise.forward_bias_prelu", (x, w, c, c), p.c_in),
        ("pointwise.forward_moments", (x, w), m),
        ("gemm.nn", (rows_in, w), p.c_in),
        ("gemm.nt", (rows_out, w), p.c_out),
        ("gemm.tn", (rows_in, rows_out), m),
    ):
        yield name, Workload(p.label, normal(*drawn), macs=macs, terms=terms)


def _linear(shapes: Shapes, batch: int) -> Named:
    c = shapes.global_avg_pool.channels
    x, w, y, macs = (batch, c), (c, CLASSES), (batch, CLASSES), batch * c * CLASSES
    yield "linear.forward", Workload("head", normal(x, w), macs=macs, terms=c)
    yield "linear.backward_input", Workload("head", normal(y, w), macs=macs, terms=CLASSES)
    yield "linear.backward_weight", Workload("head", normal(y, x), macs=macs, terms=batch)


# --- one pass over memory ---------------------------------------------------------------

_EPS = {"eps": 1e-5}


def _statistics(x: tuple[int, ...]) -> Draw:
    """Return what draws dy, x, gamma and x's own mean and variance."""

    def args(rng: np.random.Generator) -> Arguments:
        dy, drawn, gamma = normal(x, x, x[-1:])(rng)
        return dy, drawn, gamma, drawn.mean(axis=(0, 1, 2)), drawn.var(axis=(0, 1, 2))

    return args


def _given(x: tuple[int, ...]) -> Draw:
    """Return what draws x, gamma, beta, a mean and a positive variance."""

    def args(rng: np.random.Generator) -> Arguments:
        c = x[-1:]
        drawn, gamma, beta, mean, root = normal(x, c, c, c, c)(rng)
        return drawn, gamma, beta, mean, root**2 + 0.5

    return args


def _activated(x: tuple[int, ...]) -> Draw:
    """Return what draws dy, x, gamma, beta, slope and x's own mean and variance."""

    def args(rng: np.random.Generator) -> Arguments:
        dy, drawn, gamma, mean, var = _statistics(x)(rng)
        return dy, drawn, gamma, *normal(x[-1:], x[-1:])(rng), mean, var

    return args


def _passes(shapes: Shapes, batch: int) -> Named:
    for m in shapes.activation:
        yield from _pass(m, batch)


def _pass(m: Map, batch: int) -> Named:
    x, c, rows = (batch, m.size, m.size, m.channels), (m.channels,), batch * m.size**2
    leaky: dict[str, Any] = {"slope": 0.1}
    codes: dict[str, Any] = {"scale": 1 / 32, "zero": 120}
    for name, draw, settings, terms in (
        ("bias.forward", normal(x, c), {}, 1),
        ("bias.backward", normal(x), {}, rows),
        ("prelu.forward", normal(x, c), {}, 1),
        ("prelu.backward", normal(x, x, c), {}, rows),
        ("relu.forward", normal(x), {}, 1),
        ("relu.backward", normal(x, x), {}, 1),
        ("leaky_relu.forward", normal(x), leaky, 1),
        ("leaky_relu.backward", normal(x, x), leaky, 1),
        ("batchnorm.forward", normal(x, c, c), _EPS, rows),
        ("batchnorm.inference", _given(x), _EPS, 4),
        ("batchnorm.backward", _statistics(x), _EPS, rows),
        ("batchnorm.inference_backward", _statistics(x), _EPS, rows),
        ("batchnorm_prelu.forward", normal(x, c, c, c), _EPS, rows),
        ("batchnorm_prelu.backward", _activated(x), _EPS, rows),
        ("fake_quantize.forward", _between_halves(x), codes, 1),
        ("fake_quantize.backward", _masked(x), {}, 1),
    ):
        yield name, Workload(m.label, draw, settings, terms=terms)


# --- a block: batch norm, PReLU, depthwise and pointwise convolution ------------------------


def _blocks(shapes: Shapes, batch: int) -> Named:
    for m in shapes.activation:
        x, rows = (batch, m.size, m.size, m.channels), batch * m.size**2
        macs, settings = _volume(*x) * (9 + m.channels), {**_EPS, "pads": (1, 1, 1, 1)}
        block = _block(x)
        yield "separable.forward", Workload(m.label, _left_out(block), settings, macs, rows)
        yield "separable.backward", Workload(m.label, block, settings, 2 * macs, rows)


def _block(x: tuple[int, ...]) -> Draw:
    """Return what draws dy, x, d, and what else forward and backward take."""

    def args(rng: np.random.Generator) -> Arguments:
        dy, drawn, gamma, beta, slope, mean, var = _activated(x)(rng)
        c = x[-1]
        d, w, matrix = normal(x, (3, 3, c), (c, c))(rng)
        return dy, drawn, d, gamma, beta, slope, mean, var, w, matrix

    return args


def _left_out(block: Draw) -> Draw:
    """Return what draws a block without dy and d."""

    def args(rng: np.random.Generator) -> Arguments:
        _dy, drawn, _d, *rest = block(rng)
        return drawn, *rest

    return args


# --- pooling, dropout, loss -------------------------------------------------------------


def _pools(shapes: Shapes, batch: int) -> Named:
    two = {"size": (2, 2), "stride": (2, 2), "pads": (0, 0, 0, 0), "ceil_mode": False}
    average = {**two, "count_include_pad": True}
    for m in shapes.max_pool:
        x = (batch, m.size, m.size, m.channels)
        half, rows = (batch, m.size // 2, m.size // 2, m.channels), batch * m.size**2
        both = {**_EPS, **two}
        for name, draw, settings, terms in (
            ("max_pool.forward", normal(x), two, 1),
            ("max_pool.backward", _winners(half), {**two, "x_shape": x}, 1),
            ("batchnorm_prelu_max_pool.forward", _standing(x), both, 4),
            ("batchnorm_prelu_max_pool.backward", _won(half, x), both, rows),
            ("avg_pool.forward", normal(x), average, 4),
            ("avg_pool.backward", normal(half), {**average, "x_shape": x}, 4),
        ):
            yield name, Workload(m.label, draw, settings, terms=terms)


def _between_halves(x: tuple[int, ...]) -> Draw:
    """Return what draws numbers that are rounded the same in every precision."""
    return lambda rng: ((np.rint(50 * rng.standard_normal(x)) + rng.uniform(-0.4, 0.4, x)) / 32,)


def _masked(x: tuple[int, ...]) -> Draw:
    """Return what draws a gradient, and bytes that say where it passes."""
    return lambda rng: (rng.standard_normal(x), rng.integers(0, 2, x).astype(np.uint8))


def _winners(half: tuple[int, ...]) -> Draw:
    """Return what draws dy and argmax of a 2x2 pool."""
    return lambda rng: (rng.standard_normal(half), rng.integers(0, 4, half).astype(np.uint8))


def _standing(x: tuple[int, ...]) -> Draw:
    """Return what draws all of `_activated` but dy."""
    return lambda rng: _activated(x)(rng)[1:]


def _won(half: tuple[int, ...], x: tuple[int, ...]) -> Draw:
    """Return what draws dy and argmax of a 2x2 pool, and what stands in front of it."""
    return lambda rng: (*_winners(half)(rng), *_standing(x)(rng))


def _head(shapes: Shapes, batch: int) -> Named:
    m = shapes.global_avg_pool
    x, flat = (batch, m.size, m.size, m.channels), (batch, m.channels)
    logits, smooth = (batch, CLASSES), {"label_smoothing": 0.1}

    def labelled(rng: np.random.Generator) -> Arguments:
        return rng.standard_normal(logits), rng.integers(0, CLASSES, batch)

    def predicted(rng: np.random.Generator) -> Arguments:
        odds = np.exp(rng.standard_normal(logits))
        probs = odds / odds.sum(axis=1, keepdims=True)
        return np.array(1.0), probs, rng.integers(0, CLASSES, batch)

    drop: dict[str, Any] = {"p": 0.5, "seed": 1, "offset": 0}
    for name, draw, settings, terms in (
        ("global_avg_pool.forward", normal(x), {}, m.size**2),
        ("global_avg_pool.backward", normal(flat), {"x_shape": x}, 1),
        ("dropout.forward", normal(flat), drop, 1),
        ("dropout.backward", _masked(flat), {"p": 0.5}, 1),
        ("softmax_xent.forward", labelled, smooth, CLASSES * batch),
        ("softmax_xent.backward", predicted, smooth, CLASSES),
    ):
        yield name, Workload("head", draw, settings, terms=terms)


# --- optimisers and data ------------------------------------------------------------------


def _updates(shapes: Shapes, batch: int) -> Named:
    n = (shapes.parameters,)
    decay: dict[str, Any] = {"weight_decay": 5e-4}
    sgd = {"lr": 0.1, "momentum": 0.9, "nesterov": True, **decay}
    adam = {"lr": 1e-3, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "decoupled": True, "t": 7}
    rmsprop = {"lr": 1e-3, "alpha": 0.99, "eps": 1e-8, "momentum": 0.9, **decay}
    label = "all weights"
    yield "sgd.step", Workload(label, normal(n, n, n), sgd, terms=4, in_place=(0, 2))
    yield (
        "adam.step",
        Workload(label, _squares(n, 3), {**adam, **decay}, terms=8, in_place=(0, 2, 3)),
    )
    yield "rmsprop.step", Workload(label, _squares(n, 2), rmsprop, terms=8, in_place=(0, 2, 3))
    yield "square_sum.forward", Workload(label, normal(n), terms=n[0])
    size, channels = shapes.image.size, shapes.image.channels

    def pictures(rng: np.random.Generator) -> Arguments:
        images = rng.integers(0, 256, (batch, size, size, channels), dtype=np.uint8)
        pose = np.column_stack([rng.integers(-4, 5, (batch, 2)), rng.integers(0, 2, (batch, 3))])
        return images, np.arange(batch), pose, np.full(channels, 0.5), np.full(channels, 0.25)

    yield "augment.forward", Workload("batch", pictures, {"fill": "reflect", "cutout": 8}, terms=4)


def _squares(n: tuple[int, ...], place: int) -> Draw:
    """Return what draws w, g and two arrays of state, the one at `place` not negative."""

    def args(rng: np.random.Generator) -> Arguments:
        arrays = list(normal(n, n, n, n)(rng))
        arrays[place] = arrays[place] ** 2
        return tuple(arrays)

    return args


# --- 8-bit inference ----------------------------------------------------------------------


def _int8(shapes: Shapes, batch: int) -> Named:
    for name, label, draw, settings, macs in calls(shapes, batch):
        yield name, Workload(label, draw, settings, macs, exact=True)
