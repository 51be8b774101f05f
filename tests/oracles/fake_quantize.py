"""Fake quantisation, number by number."""

from __future__ import annotations

from typing import Any

import numpy as np

F32 = np.float32


def forward(x: Any, *, scale: float, zero: int) -> Any:
    """Divide in float32, let Python round, and multiply in float32."""
    quotients = np.divide(x.astype(F32), F32(scale), dtype=F32)
    codes = [float(v) if not np.isfinite(v) else float(round(float(v)) + zero)
             for v in quotients.reshape(-1)]  # fmt: skip
    kept = np.array([min(255.0, max(0.0, code)) - zero for code in codes], F32)
    inside = np.array([0 <= code <= 255 for code in codes], np.uint8)
    return np.multiply(kept, F32(scale), dtype=F32).reshape(x.shape), inside.reshape(x.shape)


def backward(dy: Any, inside: Any) -> Any:
    """Keep the gradient, or nothing of it."""
    return np.where(inside == 1, dy, 0.0)
