"""SGD step, in place: d = g + decay * w; m = momentum * m + d; w -= lr * (m or d + momentum * m).

The second form of the last term is Nesterov's momentum as PyTorch writes it (Sutskever et al.
2013, "On the importance of initialization and momentum in deep learning", rearranged). The
first step of a fresh buffer, m = 0, gives m = d, as in PyTorch without dampening.

| rung  | the one idea                                                             |
|-------|--------------------------------------------------------------------------|
| naive | one loop, one element at a time                                          |
| numpy | whole-array expressions: no compiler, about ten passes over memory       |
| fused | one pass: w, g, m are read once, w and m written once, on all threads    |

All arrays are flat, of shape (n,): the parameters of a whole model, end to end. `w` and `m`
are written; every rung returns None.
"""

from __future__ import annotations

from .checks import Array, check_array
from .jit import chunks, kernel, parallel, prange
from .ladder import Ladder

# Elements that make a chunk worth a thread: three streams of 64 KB.
CHUNK = 16384


def _check_step(
    w: Array,
    g: Array,
    m: Array,
    *,
    lr: float,
    momentum: float,
    nesterov: bool,
    weight_decay: float,
) -> None:
    check_array("w", w, ("n",))
    check_array("g", g, w.shape, like=w)
    check_array("m", m, w.shape, like=w)


def step_naive(
    w: Array,
    g: Array,
    m: Array,
    *,
    lr: float,
    momentum: float,
    nesterov: bool,
    weight_decay: float,
) -> None:
    """Follow the formula, one element at a time."""
    real = w.dtype.type
    naive_loop(w, g, m, real(lr), real(momentum), nesterov, real(weight_decay))


@kernel
def naive_loop(
    w: Array, g: Array, m: Array, lr: float, momentum: float, nesterov: bool, decay: float
) -> None:
    """W, g, m (n,) -> w and m updated."""
    for i in range(w.size):
        d = g[i] + decay * w[i]
        m[i] = momentum * m[i] + d
        if nesterov:
            w[i] -= lr * (d + momentum * m[i])
        else:
            w[i] -= lr * m[i]


def step_numpy(
    w: Array,
    g: Array,
    m: Array,
    *,
    lr: float,
    momentum: float,
    nesterov: bool,
    weight_decay: float,
) -> None:
    """Whole arrays at a time."""
    real = w.dtype.type
    d = g + real(weight_decay) * w
    m *= real(momentum)
    m += d
    w -= real(lr) * (d + real(momentum) * m if nesterov else m)


def step_fused(
    w: Array,
    g: Array,
    m: Array,
    *,
    lr: float,
    momentum: float,
    nesterov: bool,
    weight_decay: float,
) -> None:
    """One pass on all threads: 12 bytes read and 8 written per float32 weight, no temporaries."""
    real = w.dtype.type
    # The two forms differ in two factors only, so one loop without a branch serves both:
    # w -= lr * (own * d + ahead * m).
    own, ahead = (real(1), real(momentum)) if nesterov else (real(0), real(1))
    n_chunks = chunks(w.size, CHUNK)
    fused_loop(w, g, m, real(lr), real(momentum), own, ahead, real(weight_decay), n_chunks)


@parallel
def fused_loop(
    w: Array,
    g: Array,
    m: Array,
    lr: float,
    momentum: float,
    own: float,
    ahead: float,
    decay: float,
    n_chunks: int,
) -> None:
    """W, g, m (n,) -> w and m updated; a chunk of elements is one thread's work."""
    for chunk in prange(n_chunks):
        start, stop = chunk * w.size // n_chunks, (chunk + 1) * w.size // n_chunks
        w_part, g_part, m_part = w[start:stop], g[start:stop], m[start:stop]
        for i in range(w_part.size):
            d = g_part[i] + decay * w_part[i]
            velocity = momentum * m_part[i] + d
            m_part[i] = velocity
            w_part[i] -= lr * (own * d + ahead * velocity)


step = Ladder(
    "sgd.step",
    check=_check_step,
    naive=step_naive,
    numpy=step_numpy,
    fused=step_fused,
)
