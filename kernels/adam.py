"""Adam and AdamW step, in place (Kingma & Ba 2015, algorithm 1; Loshchilov & Hutter 2019).

With t = 1 for the first step::

    Adam   g += decay * w            AdamW   w *= 1 - lr * decay
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g**2
    w -= lr / (1 - beta1**t) * m / (sqrt(v) / sqrt(1 - beta2**t) + eps)

| rung  | the one idea                                                                  |
|-------|-------------------------------------------------------------------------------|
| naive | one loop, one element at a time                                               |
| numpy | whole-array expressions: no compiler, about fifteen passes over memory        |
| fused | one pass: w, g, m, v are read once, w, m, v written once, on all threads      |

All arrays are flat, of shape (n,). `w`, `m` and `v` are written; every rung returns None.
"""

from __future__ import annotations

import math

import numpy as np

from .checks import Array, check_array
from .jit import chunks, kernel, parallel, prange
from .ladder import Ladder

# Elements that make a chunk worth a thread: four streams of 64 KB.
CHUNK = 16384


def _check_step(
    w: Array,
    g: Array,
    m: Array,
    v: Array,
    *,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    decoupled: bool,
    t: int,
) -> None:
    check_array("w", w, ("n",))
    for name, array in (("g", g), ("m", m), ("v", v)):
        check_array(name, array, w.shape, like=w)


def _factors(
    w: Array,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    decoupled: bool,
    t: int,
) -> Array:
    """Return what is the same for every element, worked out in float64, in the weights' dtype.

    In order: keep (multiplies the weight, AdamW), l2 (times the weight is added to the
    gradient, Adam), step size, 1 / sqrt(1 - beta2**t), beta1, 1 - beta1, beta2, 1 - beta2, eps.
    """
    keep, l2 = (1 - lr * weight_decay, 0.0) if decoupled else (1.0, weight_decay)
    size, unbias = lr / (1 - beta1**t), 1 / math.sqrt(1 - beta2**t)
    factors = (keep, l2, size, unbias, beta1, 1 - beta1, beta2, 1 - beta2, eps)
    return np.array(factors, w.dtype)


def step_naive(
    w: Array,
    g: Array,
    m: Array,
    v: Array,
    *,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    decoupled: bool,
    t: int,
) -> None:
    """Follow the formula, one element at a time."""
    naive_loop(w, g, m, v, _factors(w, lr, beta1, beta2, eps, weight_decay, decoupled, t))


@kernel
def naive_loop(w: Array, g: Array, m: Array, v: Array, factors: Array) -> None:
    """W, g, m, v (n,), factors (9,) -> w, m and v updated."""
    keep, l2, size, unbias = factors[0], factors[1], factors[2], factors[3]
    beta1, rest1, beta2, rest2 = factors[4], factors[5], factors[6], factors[7]
    eps = factors[8]
    for i in range(w.size):
        d = g[i] + l2 * w[i]
        m[i] = beta1 * m[i] + rest1 * d
        v[i] = beta2 * v[i] + rest2 * d * d
        w[i] = keep * w[i] - size * m[i] / (np.sqrt(v[i]) * unbias + eps)


def step_numpy(
    w: Array,
    g: Array,
    m: Array,
    v: Array,
    *,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    decoupled: bool,
    t: int,
) -> None:
    """Whole arrays at a time."""
    factors = _factors(w, lr, beta1, beta2, eps, weight_decay, decoupled, t)
    keep, l2, size, unbias, _, rest1, _, rest2, small = factors
    d = g + l2 * w
    m *= factors[4]
    m += rest1 * d
    v *= factors[6]
    v += rest2 * d * d
    w *= keep
    w -= size * m / (np.sqrt(v) * unbias + small)


def step_fused(
    w: Array,
    g: Array,
    m: Array,
    v: Array,
    *,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    decoupled: bool,
    t: int,
) -> None:
    """One pass on all threads: 16 bytes read and 12 written per float32 weight, no temporaries."""
    factors = _factors(w, lr, beta1, beta2, eps, weight_decay, decoupled, t)
    fused_loop(w, g, m, v, factors, chunks(w.size, CHUNK))


@parallel
def fused_loop(w: Array, g: Array, m: Array, v: Array, factors: Array, n_chunks: int) -> None:
    """W, g, m, v (n,), factors (9,) -> w, m and v updated; a chunk is one thread's work."""
    for chunk in prange(n_chunks):
        keep, l2, size, unbias = factors[0], factors[1], factors[2], factors[3]
        beta1, rest1, beta2, rest2 = factors[4], factors[5], factors[6], factors[7]
        eps = factors[8]
        start, stop = chunk * w.size // n_chunks, (chunk + 1) * w.size // n_chunks
        w_part, g_part = w[start:stop], g[start:stop]
        m_part, v_part = m[start:stop], v[start:stop]
        for i in range(w_part.size):
            d = g_part[i] + l2 * w_part[i]
            mean = beta1 * m_part[i] + rest1 * d
            square = beta2 * v_part[i] + rest2 * d * d
            m_part[i] = mean
            v_part[i] = square
            w_part[i] = keep * w_part[i] - size * mean / (np.sqrt(square) * unbias + eps)


step = Ladder(
    "adam.step",
    check=_check_step,
    naive=step_naive,
    numpy=step_numpy,
    fused=step_fused,
)
