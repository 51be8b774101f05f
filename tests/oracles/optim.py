"""Optimiser steps, written from the papers; each returns the arrays the kernel writes."""

from __future__ import annotations

from typing import Any

import numpy as np


def sgd(
    w: Any, g: Any, m: Any, *, lr: float, momentum: float, nesterov: bool, weight_decay: float
) -> Any:
    """Gradient of the loss plus decay / 2 * |w|**2, smoothed; Nesterov looks one step ahead."""
    slope = g + weight_decay * w
    velocity = slope + momentum * m
    direction = slope + momentum * velocity if nesterov else velocity
    return w - lr * direction, velocity


def adam(
    w: Any,
    g: Any,
    m: Any,
    v: Any,
    *,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    decoupled: bool,
    t: int,
) -> Any:
    """Algorithm 1 of the paper, with its two bias-corrected estimates spelt out."""
    slope = g if decoupled else g + weight_decay * w
    m = m + (1 - beta1) * (slope - m)
    v = v + (1 - beta2) * (slope**2 - v)
    m_hat, v_hat = m / (1 - beta1**t), v / (1 - beta2**t)
    step = lr * m_hat / (np.sqrt(v_hat) + eps)
    if decoupled:
        step = step + lr * weight_decay * w
    return w - step, m, v


def rmsprop(
    w: Any,
    g: Any,
    v: Any,
    m: Any,
    *,
    lr: float,
    alpha: float,
    eps: float,
    momentum: float,
    weight_decay: float,
) -> Any:
    """Divide by a running root mean square; momentum acts on the quotient."""
    slope = g + weight_decay * w
    v = v + (1 - alpha) * (slope**2 - v)
    m = momentum * m + slope / (np.sqrt(v) + eps)
    return w - lr * m, v, m


def square_sum(x: Any) -> Any:
    """Euclidean norm, squared."""
    return np.asarray(np.linalg.norm(x) ** 2)
