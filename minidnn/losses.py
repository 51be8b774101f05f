"""Losses: softmax cross-entropy and mean squared error; probabilities and accuracy."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from minidnn.errors import ConfigError, DTypeError, ShapeError
from minidnn.kernels import softmax_xent as kernel
from minidnn.module import Module
from minidnn.tensor import Array, Backward, Tensor, op


@op
def softmax_xent(logits: Array, *, labels: Array, label_smoothing: float) -> tuple[Array, Backward]:
    """Mean cross-entropy of a batch; the loops are in `minidnn.kernels.softmax_xent`."""
    loss, probs = kernel.forward(logits, labels, label_smoothing=label_smoothing)

    def backward(dy: Array) -> Array:
        dy = np.asarray(dy)  # NumPy makes scalars of arrays of shape ()
        return kernel.backward(dy, probs, labels, label_smoothing=label_smoothing)

    return loss, backward


def _int64(labels: ArrayLike) -> Array:
    array = np.asarray(labels)
    if array.dtype.kind not in "iu":
        raise DTypeError(f"labels: expected integers, got {array.dtype}")
    return array.astype(np.int64, copy=False)


def cross_entropy(logits: Tensor, labels: ArrayLike, *, label_smoothing: float = 0.0) -> Tensor:
    """Return the mean softmax cross-entropy of a batch.

    Parameters
    ----------
    logits : Tensor of shape (N, K)
        Unnormalised log-probabilities of K classes.
    labels : integer array of shape (N,)
        Class of each row, 0 to K - 1.
    label_smoothing : float
        Share of the target that is spread evenly over all K classes (PyTorch's meaning).

    Returns
    -------
    Tensor of shape ()

    Raises
    ------
    InputError
        Naming the row, where a label is out of range.
    ShapeError, DTypeError
    """
    return softmax_xent(logits, labels=_int64(labels), label_smoothing=float(label_smoothing))


class CrossEntropyLoss(Module):
    """`cross_entropy` as a module: ``loss(logits, labels)``.

    Parameters
    ----------
    label_smoothing : float
    """

    def __init__(self, label_smoothing: float = 0.0) -> None:
        super().__init__()
        if not 0 <= label_smoothing <= 1:
            raise ConfigError(f"label_smoothing: expected 0 to 1, got {label_smoothing}")
        self.label_smoothing = float(label_smoothing)

    def forward(self, logits: Tensor, labels: ArrayLike) -> Tensor:
        """Logits (N, K), labels (N,) -> loss ()."""
        return cross_entropy(logits, labels, label_smoothing=self.label_smoothing)

    def extra_repr(self) -> str:
        """Return the smoothing."""
        return f"label_smoothing={self.label_smoothing:g}"


def mse_loss(prediction: Tensor, target: Tensor | Array) -> Tensor:
    """Return the mean of the squared differences; shapes must agree, nothing is broadcast.

    Raises
    ------
    ShapeError
    """
    if prediction.shape != target.shape:
        raise ShapeError(f"target: expected shape {prediction.shape}, got {target.shape}")
    difference = prediction - target
    return (difference * difference).mean()


class MSELoss(Module):
    """`mse_loss` as a module: ``loss(prediction, target)``."""

    def forward(self, prediction: Tensor, target: Tensor | Array) -> Tensor:
        """Two arrays of one shape -> loss ()."""
        return mse_loss(prediction, target)


@op
def log_softmax(x: Array) -> tuple[Array, Backward]:
    """Logarithms of the softmax over the last axis, computed without leaving exp's range."""
    with np.errstate(invalid="ignore", divide="ignore"):
        shifted = x - x.max(axis=-1, keepdims=True)
        y = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))

    def backward(dy: Array) -> Array:
        dx: Array = dy - np.exp(y) * dy.sum(axis=-1, keepdims=True)
        return dx

    return y, backward


@op
def softmax(x: Array) -> tuple[Array, Backward]:
    """Probabilities over the last axis."""
    with np.errstate(invalid="ignore"):
        y = np.exp(x - x.max(axis=-1, keepdims=True))
        y /= y.sum(axis=-1, keepdims=True)

    def backward(dy: Array) -> Array:
        dx: Array = y * (dy - (dy * y).sum(axis=-1, keepdims=True))
        return dx

    return y, backward


def accuracy(logits: Tensor | Array, labels: ArrayLike) -> float:
    """Return the share of rows whose largest logit is at the label, 0 to 1.

    Parameters
    ----------
    logits : Tensor or ndarray of shape (N, K), N >= 1
    labels : integer array of shape (N,)

    Raises
    ------
    ShapeError, DTypeError
    """
    scores = logits.data if isinstance(logits, Tensor) else logits
    wanted = _int64(labels)
    if scores.ndim != 2 or wanted.shape != scores.shape[:1] or scores.size == 0:
        raise ShapeError(
            f"accuracy: expected logits (N, K) and labels (N,), got {scores.shape}, {wanted.shape}"
        )
    return float((scores.argmax(axis=1) == wanted).mean())
