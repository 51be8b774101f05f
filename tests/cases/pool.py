"""Cases of the pooling kernels."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.cases import CASES, Case, drawn, signed
from tests.oracles import pool as oracle


def _window(
    shape: tuple[int, ...],
    size: tuple[int, int],
    stride: tuple[int, int],
    pads: tuple[int, int, int, int] = (0, 0, 0, 0),
    ceil_mode: bool = False,
) -> tuple[tuple[int, ...], dict[str, Any]]:
    return shape, {"size": size, "stride": stride, "pads": pads, "ceil_mode": ceil_mode}


WINDOWS = {
    "2x2_even": _window((2, 4, 6, 7), (2, 2), (2, 2)),
    "2x2_odd_floor": _window((1, 5, 7, 17), (2, 2), (2, 2)),
    "2x2_odd_ceil": _window((3, 5, 7, 1), (2, 2), (2, 2), ceil_mode=True),
    "3x3_s2": _window((2, 7, 7, 16), (3, 3), (2, 2)),
    "3x3_s2_pad1": _window((2, 7, 8, 5), (3, 3), (2, 2), (1, 1, 1, 1)),
    "3x3_s2_ceil": _window((1, 8, 6, 33), (3, 3), (2, 2), ceil_mode=True),
    "3x3_s2_pad1_ceil": _window((2, 6, 9, 3), (3, 3), (2, 2), (1, 1, 1, 1), True),
    "3x3_s1_pad1": _window((2, 3, 4, 5), (3, 3), (1, 1), (1, 1, 1, 1)),
    "2x3_uneven": _window((2, 6, 7, 4), (2, 3), (3, 1), (0, 1, 1, 2)),
    "smaller_than_a_window_ceil": _window((2, 1, 2, 5), (2, 3), (2, 2), ceil_mode=True),
    "gaps": _window((2, 9, 9, 3), (2, 2), (4, 4), ceil_mode=True),
    "whole": _window((2, 3, 5, 7), (3, 5), (3, 5)),
    "1x1": _window((1, 1, 1, 1), (1, 1), (1, 1)),
    "2x2_vectors_ceil": _window((2, 5, 7, 33), (2, 2), (2, 2), ceil_mode=True),
    "2x2_vectors_pad1": _window((2, 5, 6, 35), (2, 2), (2, 2), (1, 1, 1, 1)),
    "2x2_vectors_s1": _window((1, 4, 5, 48), (2, 2), (1, 1)),
    "many_images": _window((70, 4, 4, 3), (2, 2), (2, 2)),
}


def _ties(shape: tuple[int, ...]) -> Any:
    """Few different values, so that windows hold equal maxima."""
    return lambda rng: (np.round(signed(rng, *shape)),)


def _max_backward(shape: tuple[int, ...], settings: dict[str, Any]) -> Any:
    def args(rng: np.random.Generator) -> tuple[Any, ...]:
        y, argmax = oracle.max_pool(signed(rng, *shape), **settings)
        return signed(rng, *y.shape), argmax

    return args


def _avg_backward(shape: tuple[int, ...], settings: dict[str, Any]) -> Any:
    def args(rng: np.random.Generator) -> tuple[Any, ...]:
        return (signed(rng, *oracle.avg_pool(np.zeros(shape), **settings).shape),)

    return args


AVERAGES = {
    f"{name}{'' if counted else '_exclude'}": (shape, {**settings, "count_include_pad": counted})
    for name, (shape, settings) in WINDOWS.items()
    for counted in (True, False)
    if counted or any(settings["pads"])
}

CASES["max_pool.forward"] = [
    Case(name, drawn(shape), oracle.max_pool, terms=1, settings=settings)
    for name, (shape, settings) in WINDOWS.items()
] + [
    Case(f"ties_{name}", _ties(shape), oracle.max_pool, terms=1, settings=settings)
    for name, (shape, settings) in WINDOWS.items()
]
CASES["max_pool.backward"] = [
    Case(
        name,
        _max_backward(shape, settings),
        oracle.max_pool_backward,
        terms=9,
        settings={**settings, "x_shape": shape},
    )
    for name, (shape, settings) in WINDOWS.items()
]
CASES["avg_pool.forward"] = [
    Case(name, drawn(shape), oracle.avg_pool, terms=15, settings=settings)
    for name, (shape, settings) in AVERAGES.items()
]
CASES["avg_pool.backward"] = [
    Case(
        name,
        _avg_backward(shape, settings),
        oracle.avg_pool_backward,
        terms=9,
        settings={**settings, "x_shape": shape},
    )
    for name, (shape, settings) in AVERAGES.items()
]

IMAGES = {
    "n1_c1": (1, 1, 1, 1),
    "odd_c7": (2, 3, 5, 7),
    "c17": (3, 4, 4, 17),
    "many": (130, 3, 3, 16),
    "no_images": (0, 3, 3, 5),
}
CASES["global_avg_pool.forward"] = [
    Case(name, drawn(shape), oracle.global_avg_pool, terms=16) for name, shape in IMAGES.items()
]
CASES["global_avg_pool.backward"] = [
    Case(
        name,
        drawn((shape[0], shape[3])),
        oracle.global_avg_pool_backward,
        terms=1,
        settings={"x_shape": shape},
    )
    for name, shape in IMAGES.items()
]


def _activated(name: str, slopes: int, images: int, *, backward: bool) -> Any:
    (_, *size), settings = WINDOWS[name]
    shape = (images, *size)

    def args(rng: np.random.Generator) -> tuple[Any, ...]:
        x, c = signed(rng, *shape), shape[-1]
        rows = x.reshape(-1, c)
        gamma, beta, slope = signed(rng, c) + 0.5, signed(rng, c), signed(rng, slopes or c)
        given = (x, gamma, beta, slope, rows.mean(axis=0), rows.var(axis=0))
        if not backward:
            return given
        y, argmax = oracle.activated_max_pool(*given, eps=1e-3, **settings)
        return (signed(rng, *y.shape), argmax, *given)

    return args


# Few images go one op after the other, eight and more image by image.
ACTIVATED = [
    (name, slopes, images)
    for name in ("2x2_odd_ceil", "3x3_s2_pad1_ceil", "gaps")
    for slopes, images in ((0, 3), (0, 9), (1, 8))
]
CASES["batchnorm_prelu_max_pool.forward"] = [
    Case(
        f"{name}_{images}_{slopes}",
        _activated(name, slopes, images, backward=False),
        oracle.activated_max_pool,
        terms=8,
        settings={**WINDOWS[name][1], "eps": 1e-3},
    )
    for name, slopes, images in ACTIVATED
]
CASES["batchnorm_prelu_max_pool.backward"] = [
    Case(
        f"{name}_{images}_{slopes}",
        _activated(name, slopes, images, backward=True),
        oracle.activated_max_pool_backward,
        terms=1100,
        settings={**WINDOWS[name][1], "eps": 1e-3},
    )
    for name, slopes, images in ACTIVATED
]
