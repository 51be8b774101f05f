"""Softmax cross-entropy with label smoothing, averaged over the rows of a batch.

loss = mean over rows of  -sum_k t_k log p_k,   p = softmax(logits),
t = (1 - s) * one_hot(label) + s / K   (Szegedy et al. 2016, section 7; PyTorch's meaning)

| rung  | the one idea                                                              |
|-------|---------------------------------------------------------------------------|
| naive | the formula row by row, in float64, its largest logit taken off first     |
| numpy | whole-array expressions                                                   |
| fused | a row is read once for the maximum and once for exp in vectors; all       |
|       | threads                                                                   |

`forward` returns the loss (shape ()) and the probabilities, of which the gradient is made:
dlogits = (p - t) / N. Taking off the maximum keeps exp in range for any finite logits. A
logit of -inf has probability zero; the loss is infinite only if its class has weight in t.
"""

from __future__ import annotations

import numpy as np

from .checks import Array, DTypeError, InputError, ShapeError, check_array
from .jit import chunks, kernel, parallel, prange
from .ladder import Ladder
from .simd import (
    VECTOR_BYTES,
    add,
    highest,
    load,
    maximum,
    multiply,
    multiply_add,
    power_of_two,
    splat,
    store,
    subtract,
    total,
    where_positive,
    whole_vectors,
    zero,
)

GRAIN = 1 << 10  # logits that make a chunk worth a thread
BLOCK = 64 * VECTOR_BYTES  # bytes of a row whose sums are kept in float32

# exp(x) = 2 ** n * exp(r), n the whole number next to x / ln 2 and so |r| <= ln 2 / 2. ln 2 comes
# in two parts, of which n times the first is exact; the coefficients of exp(r) are those of
# its Taylor series, after the seventh term: what is left is below 2e-8.
MAGIC = np.float32(1.5 * 2**23)  # added to a small number, it rounds that to a whole one
PER_LN2 = np.float32(1 / np.log(2))
LN2_HIGH = np.float32(0.693359375)
LN2_LOW = np.float32(np.log(2) - 0.693359375)
LEAST = np.float32(-87.0)  # below, exp(x) is less than 1.6e-38: taken to be zero
C2, C3, C4, C5, C6, C7 = (np.float32(1 / n) for n in (2, 6, 24, 120, 720, 5040))


def _check_labels(logits: Array, labels: Array, label_smoothing: float) -> None:
    check_array("logits", logits, ("N", "K"))
    n, classes = logits.shape
    if n == 0 or classes == 0:
        raise ShapeError(f"logits: expected at least one row and one class, got {logits.shape}")
    if not isinstance(labels, np.ndarray) or labels.dtype != np.int64:
        kind = getattr(labels, "dtype", type(labels).__name__)
        raise DTypeError(f"labels: expected an int64 ndarray, got {kind}")
    if labels.shape != (n,):
        raise ShapeError(f"labels: expected shape ({n},) like the logits' rows, got {labels.shape}")
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if wrong.size:
        row = int(wrong[0])
        raise InputError(
            f"labels: row {row} has label {labels[row]}, but there are {classes} classes "
            f"(expected 0 to {classes - 1}); {wrong.size} of {n} labels are out of range"
        )
    if not 0 <= label_smoothing <= 1:
        raise InputError(f"label_smoothing: expected 0 to 1, got {label_smoothing}")


def _check_forward(logits: Array, labels: Array, *, label_smoothing: float) -> None:
    _check_labels(logits, labels, label_smoothing)


def _check_backward(dy: Array, probs: Array, labels: Array, *, label_smoothing: float) -> None:
    _check_labels(probs, labels, label_smoothing)
    check_array("dy", dy, (), like=probs)


def _mean(losses: Array, like: Array) -> Array:
    """Average the rows' losses, always in the same order; shape ()."""
    return np.asarray(losses.sum() / losses.size, like.dtype)


def forward_naive(logits: Array, labels: Array, *, label_smoothing: float) -> tuple[Array, Array]:
    """Follow the formula row by row."""
    losses, probs = np.empty(len(logits)), np.empty_like(logits)
    naive_forward_loop(logits, labels, label_smoothing, losses, probs)
    return _mean(losses, logits), probs


@kernel
def naive_forward_loop(
    logits: Array, labels: Array, smoothing: float, losses: Array, probs: Array
) -> None:
    """Logits, probs (N, K), labels, losses (N,)."""
    n, classes = logits.shape
    for row in range(n):
        largest = logits[row, 0]
        for k in range(1, classes):
            if logits[row, k] > largest:
                largest = logits[row, k]
        total = 0.0
        for k in range(classes):
            total += np.exp(np.float64(logits[row, k] - largest))
        loss = 0.0
        for k in range(classes):
            log_p = np.float64(logits[row, k] - largest) - np.log(total)
            probs[row, k] = np.exp(log_p)
            if smoothing > 0:
                loss -= smoothing / classes * log_p
            if k == labels[row] and smoothing < 1:
                loss -= (1 - smoothing) * log_p
        losses[row] = loss


def backward_naive(dy: Array, probs: Array, labels: Array, *, label_smoothing: float) -> Array:
    """Subtract the target from the probabilities, element by element."""
    dlogits = np.empty_like(probs)
    naive_backward_loop(dy.item(), probs, labels, label_smoothing, dlogits)
    return dlogits


@kernel
def naive_backward_loop(
    dy: float, probs: Array, labels: Array, smoothing: float, dlogits: Array
) -> None:
    """Probs, dlogits (N, K), labels (N,)."""
    n, classes = probs.shape
    for row in range(n):
        for k in range(classes):
            target = smoothing / classes
            if k == labels[row]:
                target += 1 - smoothing
            dlogits[row, k] = dy / n * (probs[row, k] - target)


def _log_probs(logits: Array) -> Array:
    """Logarithms of the probabilities in float64; -inf and NaN pass in silence."""
    with np.errstate(invalid="ignore", divide="ignore"):
        shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
        result: Array = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return result


def forward_numpy(logits: Array, labels: Array, *, label_smoothing: float) -> tuple[Array, Array]:
    """Whole arrays at a time."""
    log_p = _log_probs(logits)
    losses = np.zeros(len(logits))
    if label_smoothing < 1:
        losses -= (1 - label_smoothing) * log_p[np.arange(len(logits)), labels]
    if label_smoothing > 0:
        losses -= label_smoothing * log_p.mean(axis=1)
    return _mean(losses, logits), np.exp(log_p).astype(logits.dtype)


def backward_numpy(dy: Array, probs: Array, labels: Array, *, label_smoothing: float) -> Array:
    """Whole arrays at a time."""
    target = np.full(probs.shape, label_smoothing / probs.shape[1])
    target[np.arange(len(probs)), labels] += 1 - label_smoothing
    dlogits: Array = (dy / len(probs) * (probs - target)).astype(probs.dtype)
    return dlogits


def _row_chunks(logits: Array) -> int:
    return chunks(len(logits), max(1, GRAIN // logits.shape[1]))


def forward_fused(logits: Array, labels: Array, *, label_smoothing: float) -> tuple[Array, Array]:
    """Rows on all threads; one exp per element, and one log per row."""
    losses, probs = np.empty(len(logits)), np.empty_like(logits)
    fused_forward_loop(logits, labels, label_smoothing, losses, probs, _row_chunks(logits))
    return _mean(losses, logits), probs


@parallel
def fused_forward_loop(
    logits: Array, labels: Array, smoothing: float, losses: Array, probs: Array, n_chunks: int
) -> None:
    """Logits, probs (N, K), labels, losses (N,)."""
    n, classes = logits.shape
    for chunk in prange(n_chunks):
        for row in range(chunk * n // n_chunks, (chunk + 1) * n // n_chunks):
            z, p = logits[row], probs[row]
            largest = largest_of(z)
            whole, shifted = exponentials(z, largest, p)
            share = p.dtype.type(1 / whole)
            for k in range(z.size):
                p[k] *= share
            log_total = np.log(whole)
            loss = 0.0
            if smoothing > 0:
                loss += smoothing * (log_total - shifted / classes)
            if smoothing < 1:
                loss += (1 - smoothing) * (log_total - (z[labels[row]] - largest))
            losses[row] = loss


@kernel
def largest_of(z: Array) -> float:
    """Return the largest of z (K,); NaN if there is one, or else the result of exp will be."""
    whole = whole_vectors(z)
    largest: float = z[0]
    if whole > 0:
        found = load(z.ctypes.data)
        for at in range(VECTOR_BYTES, whole, VECTOR_BYTES):
            found = maximum(found, load(z.ctypes.data + at))
        largest = z.dtype.type(highest(found))
    left = z[whole // z.itemsize :]
    for k in range(left.size):
        largest = left[k] if left[k] > largest else largest
    return largest


@kernel
def exponentials(z: Array, largest: float, p: Array) -> tuple[float, float]:
    """z (K,) -> p (K,) = exp(z - largest); return the sums of p and of z - largest."""
    whole, total_p, total_d = whole_vectors(z), 0.0, 0.0
    top = splat(np.float32(largest))
    for start in range(0, whole, BLOCK):
        sum_p, sum_d = zero(), zero()
        for at in range(start, min(start + BLOCK, whole), VECTOR_BYTES):
            d = subtract(load(z.ctypes.data + at), top)
            e = exp_of_negative(d)
            store(e, p.ctypes.data + at)
            sum_p, sum_d = add(sum_p, e), add(sum_d, d)
        total_p += np.float64(total(sum_p))
        total_d += np.float64(total(sum_d))
    rest, p_rest = z[whole // z.itemsize :], p[whole // z.itemsize :]
    for k in range(rest.size):
        d = rest[k] - largest
        p_rest[k] = np.exp(d)
        total_p += p_rest[k]
        total_d += d
    return total_p, total_d


@kernel
def exp_of_negative(x: object) -> object:
    """Return exp(x) of a vector of numbers <= 0, -inf and NaN included."""
    n_and_magic = multiply_add(x, splat(PER_LN2), splat(MAGIC))
    n = subtract(n_and_magic, splat(MAGIC))
    r = multiply_add(n, splat(-LN2_LOW), multiply_add(n, splat(-LN2_HIGH), x))
    e = multiply_add(r, splat(C7), splat(C6))
    e = multiply_add(r, e, splat(C5))
    e = multiply_add(r, e, splat(C4))
    e = multiply_add(r, e, splat(C3))
    e = multiply_add(r, e, splat(C2))
    e = multiply_add(multiply(r, r), e, add(r, splat(np.float32(1))))
    result = multiply(e, power_of_two(n_and_magic))
    # Not where x >= LEAST: a NaN is to stay one.
    return where_positive(subtract(splat(LEAST), x), zero(), result)


def backward_fused(dy: Array, probs: Array, labels: Array, *, label_smoothing: float) -> Array:
    """One pass over all elements, then one correction per row."""
    dlogits = np.empty_like(probs)
    share = dy.item() / len(probs)
    fused_backward_loop(share, probs, labels, label_smoothing, dlogits, _row_chunks(probs))
    return dlogits


@parallel
def fused_backward_loop(
    share: float, probs: Array, labels: Array, smoothing: float, dlogits: Array, n_chunks: int
) -> None:
    """Probs, dlogits (N, K), labels (N,)."""
    n, classes = probs.shape
    for chunk in prange(n_chunks):
        for row in range(chunk * n // n_chunks, (chunk + 1) * n // n_chunks):
            p, d = probs[row], dlogits[row]
            for k in range(p.size):
                d[k] = share * (p[k] - smoothing / classes)
            label = labels[row]
            d[label] = share * (p[label] - smoothing / classes - (1 - smoothing))


forward = Ladder(
    "softmax_xent.forward",
    check=_check_forward,
    naive=forward_naive,
    numpy=forward_numpy,
    fused=forward_fused,
)
backward = Ladder(
    "softmax_xent.backward",
    check=_check_backward,
    naive=backward_naive,
    numpy=backward_numpy,
    fused=backward_fused,
)
