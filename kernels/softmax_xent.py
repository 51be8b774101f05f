"""Softmax cross-entropy with label smoothing, averaged over the rows of a batch.

loss = mean over rows of  -sum_k t_k log p_k,   p = softmax(logits),
t = (1 - s) * one_hot(label) + s / K   (Szegedy et al. 2016, section 7; PyTorch's meaning)

| rung  | the one idea                                                              |
|-------|---------------------------------------------------------------------------|
| naive | the formula row by row, in float64, its largest logit taken off first     |
| numpy | whole-array expressions                                                   |
| fused | a row is read once for the maximum and once for the rest, all threads     |

`forward` returns the loss (shape ()) and the probabilities, of which the gradient is made:
dlogits = (p - t) / N. Taking off the maximum keeps exp in range for any finite logits. A
logit of -inf has probability zero; the loss is infinite only if its class has weight in t.
"""

from __future__ import annotations

import numpy as np

from .checks import Array, DTypeError, InputError, ShapeError, check_array
from .jit import chunks, kernel, parallel, prange
from .ladder import Ladder

GRAIN = 1 << 10  # logits that make a chunk worth a thread


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
            largest = z[0]
            for k in range(z.size):
                largest = z[k] if z[k] > largest else largest
            total, shifted = 0.0, 0.0
            for k in range(z.size):
                d = z[k] - largest
                e = np.exp(d)
                p[k] = e
                total += e
                shifted += d
            for k in range(z.size):
                p[k] /= total
            log_total = np.log(total)
            loss = 0.0
            if smoothing > 0:
                loss += smoothing * (log_total - shifted / classes)
            if smoothing < 1:
                loss += (1 - smoothing) * (log_total - (z[labels[row]] - largest))
            losses[row] = loss


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
