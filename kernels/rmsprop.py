"""RMSProp step, in place (Tieleman & Hinton 2012, lecture 6.5), with optional momentum::

    g += decay * w
    v = alpha * v + (1 - alpha) * g**2
    m = momentum * m + g / (sqrt(v) + eps)
    w -= lr * m

| rung  | the one idea                                                                |
|-------|-----------------------------------------------------------------------------|
| naive | one loop, one element at a time                                             |
| numpy | whole-array expressions: no compiler, about twelve passes over memory       |
| fused | one pass: w, g, v, m are read once, w, v, m written once, on all threads    |

All arrays are flat, of shape (n,). `w`, `v` and `m` are written; every rung returns None.
"""

from __future__ import annotations

import numpy as np

from .checks import Array, check_array
from .jit import chunks, kernel, parallel, prange
from .ladder import Ladder

# Elements that make a chunk worth a thread: four streams of 64 KB.
CHUNK = 16384


def _check_step(
    w: Array,
    g: Array,
    v: Array,
    m: Array,
    *,
    lr: float,
    alpha: float,
    eps: float,
    momentum: float,
    weight_decay: float,
) -> None:
    check_array("w", w, ("n",))
    for name, array in (("g", g), ("v", v), ("m", m)):
        check_array(name, array, w.shape, like=w)


def _factors(
    w: Array, lr: float, alpha: float, eps: float, momentum: float, weight_decay: float
) -> Array:
    """Return what is the same for every element, in the weights' dtype."""
    return np.array((lr, alpha, 1 - alpha, eps, momentum, weight_decay), w.dtype)


def step_naive(
    w: Array,
    g: Array,
    v: Array,
    m: Array,
    *,
    lr: float,
    alpha: float,
    eps: float,
    momentum: float,
    weight_decay: float,
) -> None:
    """Follow the formula, one element at a time."""
    naive_loop(w, g, v, m, _factors(w, lr, alpha, eps, momentum, weight_decay))


@kernel
def naive_loop(w: Array, g: Array, v: Array, m: Array, factors: Array) -> None:
    """W, g, v, m (n,), factors (6,) -> w, v and m updated."""
    lr, alpha, rest = factors[0], factors[1], factors[2]
    eps, momentum, decay = factors[3], factors[4], factors[5]
    for i in range(w.size):
        d = g[i] + decay * w[i]
        v[i] = alpha * v[i] + rest * d * d
        m[i] = momentum * m[i] + d / (np.sqrt(v[i]) + eps)
        w[i] -= lr * m[i]


def step_numpy(
    w: Array,
    g: Array,
    v: Array,
    m: Array,
    *,
    lr: float,
    alpha: float,
    eps: float,
    momentum: float,
    weight_decay: float,
) -> None:
    """Whole arrays at a time."""
    rate, keep, rest, small, inertia, decay = _factors(w, lr, alpha, eps, momentum, weight_decay)
    d = g + decay * w
    v *= keep
    v += rest * d * d
    m *= inertia
    m += d / (np.sqrt(v) + small)
    w -= rate * m


def step_fused(
    w: Array,
    g: Array,
    v: Array,
    m: Array,
    *,
    lr: float,
    alpha: float,
    eps: float,
    momentum: float,
    weight_decay: float,
) -> None:
    """One pass on all threads: 16 bytes read and 12 written per float32 weight, no temporaries."""
    factors = _factors(w, lr, alpha, eps, momentum, weight_decay)
    fused_loop(w, g, v, m, factors, chunks(w.size, CHUNK))


@parallel
def fused_loop(w: Array, g: Array, v: Array, m: Array, factors: Array, n_chunks: int) -> None:
    """W, g, v, m (n,), factors (6,) -> w, v and m updated; a chunk is one thread's work."""
    for chunk in prange(n_chunks):
        lr, alpha, rest = factors[0], factors[1], factors[2]
        eps, momentum, decay = factors[3], factors[4], factors[5]
        start, stop = chunk * w.size // n_chunks, (chunk + 1) * w.size // n_chunks
        w_part, g_part = w[start:stop], g[start:stop]
        v_part, m_part = v[start:stop], m[start:stop]
        for i in range(w_part.size):
            d = g_part[i] + decay * w_part[i]
            square = alpha * v_part[i] + rest * d * d
            velocity = momentum * m_part[i] + d / (np.sqrt(square) + eps)
            v_part[i] = square
            m_part[i] = velocity
            w_part[i] -= lr * velocity


step = Ladder(
    "rmsprop.step",
    check=_check_step,
    naive=step_naive,
    numpy=step_numpy,
    fused=step_fused,
)
