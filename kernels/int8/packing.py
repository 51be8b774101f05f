"""Weights as the inner loops read them: panels of 32 columns, four numbers of a column together.

``panels[n // 32, k // 4, n % 32, k % 4] = w[k, n]``: an instruction multiplies four neighbours
of a row of A with four of B, and adds them up in 32 bits. So the four bytes of a column lie
together, and those of the next column beside them. Columns past the last one are zero.

Where K is no multiple of four, the last group stands for numbers K - 4 to K - 1, and those that
the group before has too are zero here. Where K is less than four, the rest are zero.
"""

from __future__ import annotations

import numpy as np

from ..checks import Array, DTypeError, ShapeError

PANEL = 32
GROUP = 4


def pack(w: Array) -> Array:
    """Return w (K, N) int8 as panels (ceil(N / 32), ceil(K / 4), 32, 4)."""
    if w.dtype != np.int8:
        raise DTypeError(f"w: expected int8, got {w.dtype}")
    if w.ndim != 2 or w.shape[0] < 1:
        raise ShapeError(f"w: expected shape (K, N) with K >= 1, got {w.shape}")
    k, n = w.shape
    groups, n_panels = -(-k // GROUP), -(-n // PANEL)
    padded = np.zeros((groups * GROUP, n_panels * PANEL), np.int8)
    padded[:k, :n] = w
    if k > GROUP and k % GROUP:
        missing = groups * GROUP - k
        padded[-GROUP:] = np.roll(padded[-GROUP:], missing, axis=0)
    by_group = padded.reshape(groups, GROUP, n_panels, PANEL).transpose(2, 0, 3, 1)
    return np.ascontiguousarray(by_group)


def unpack(panels: Array, k: int, n: int) -> Array:
    """Return the weights (K, N) of panels: the inverse of `pack`."""
    n_panels, groups, _, _ = panels.shape
    w = panels.transpose(1, 3, 0, 2).reshape(groups * GROUP, n_panels * PANEL)
    if k > GROUP and k % GROUP:
        missing = groups * GROUP - k
        w = np.concatenate([w[:-GROUP], np.roll(w[-GROUP:], -missing, axis=0)])
    return np.ascontiguousarray(w[:k, :n])


def panels_shape(k: int, n: int) -> tuple[int, int, int, int]:
    """Return the shape of the panels of weights (K, N)."""
    return -(-n // PANEL), -(-k // GROUP), PANEL, GROUP
