"""Measuring a trained model: loss, accuracy, confusion matrix, averaging over views."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np

from minidnn.data.batches import Batches
from minidnn.kernels.ahead import Call
from minidnn.module import Module
from minidnn.plan.compiler import Plan
from minidnn.tensor import Array, Tensor, no_grad
from minidnn.warmup import warm_up


@dataclass(frozen=True)
class Evaluation:
    """What a model makes of a set of labelled pictures.

    Attributes
    ----------
    loss : float
        Mean cross-entropy, without label smoothing.
    confusion : ndarray
        int64, shape (K, K): how many pictures of class `row` were taken for class `column`.
    right : ndarray
        bool, shape (N,): which pictures were taken for what they are.
    """

    loss: float
    confusion: Array
    right: Array

    @property
    def images(self) -> int:
        """Number of pictures."""
        return int(self.confusion.sum())

    @property
    def correct(self) -> int:
        """Number of pictures taken for what they are."""
        return int(np.trace(self.confusion))

    @property
    def accuracy(self) -> float:
        """Share of pictures taken for what they are."""
        return self.correct / self.images

    def recall(self) -> Array:
        """Return per class the share of its pictures that were found, NaN where it has none."""
        return _ratio(np.diag(self.confusion), self.confusion.sum(axis=1))

    def precision(self) -> Array:
        """Return per class the share of pictures taken for it that were, NaN where none was."""
        return _ratio(np.diag(self.confusion), self.confusion.sum(axis=0))


def _ratio(part: Array, whole: Array) -> Array:
    share = np.full(len(part), np.nan)
    np.divide(part, whole, out=share, where=whole > 0)
    return share


@contextmanager
def evaluating(model: Module) -> Iterator[None]:
    """Put the model in evaluation mode and keep no tape inside the block."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode


def softmax(logits: Array) -> Array:
    """Return probabilities (N, K) in float64."""
    return np.exp(log_softmax(logits))


def log_softmax(logits: Array) -> Array:
    """Return logarithms of probabilities (N, K) in float64."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def views(x: Array) -> Iterator[tuple[float, Array]]:
    """Yield (weight, pictures) of the six views of test-time averaging.

    As they are and mirrored, each in place (weight 1/4) and shifted by one pixel up and left,
    and down and right (weight 1/8 each), edges reflected: Jordan 2024 (arXiv:2404.00498),
    section 3.5.

    Parameters
    ----------
    x : ndarray
        Shape (N, H, W, C), at least 2x2 pixels.
    """
    _, h, w, _ = x.shape
    for image in (x, x[:, :, ::-1]):
        padded = np.pad(image, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
        for weight, start in ((0.25, 1), (0.125, 0), (0.125, 2)):
            view = padded[:, start : start + h, start : start + w]
            yield weight, np.ascontiguousarray(view)


def predict(model: Module | Plan, x: Array, *, tta: bool = False) -> Array:
    """Return the logits (N, K) for pictures (N, H, W, C); with `tta` the mean over six views."""
    if tta:
        return np.asarray(sum(weight * predict(model, view) for weight, view in views(x)))
    if isinstance(model, Plan):
        return np.asarray(model(x))
    with evaluating(model):
        return np.asarray(model(Tensor(x)).data)


def evaluate(
    model: Module | Plan,
    batches: Batches,
    *,
    tta: bool = False,
    progress: Callable[[int], None] = lambda images: None,
    tell: Callable[[Call, float], None] = lambda call, seconds: None,
) -> Evaluation:
    """Measure a model on every picture of some batches.

    Parameters
    ----------
    model : Module or Plan
        Pictures (N, H, W, C) -> logits (N, K); a module's mode is put back afterwards.
    batches : Batches
        Without augmentation, with no picture left out.
    tta : bool
        Average the logits over six `views`.
    progress : callable
        Called with the number of pictures done.
    tell : callable
        Called with each kernel that `warm_up` compiles for it.
    """
    k = len(batches.dataset.classes)
    confusion = np.zeros((k, k), np.int64)
    total, right = 0.0, []
    for x, labels in batches.epoch(0):
        if not confusion.any():
            warm_up(partial(predict, model, x), tell=tell)
        logits = predict(model, x, tta=tta)
        total -= float(log_softmax(logits)[np.arange(len(labels)), labels].sum())
        named = logits.argmax(axis=1)
        np.add.at(confusion, (labels, named), 1)
        right.append(named == labels)
        progress(int(confusion.sum()))
    return Evaluation(total / int(confusion.sum()), confusion, np.concatenate(right))
