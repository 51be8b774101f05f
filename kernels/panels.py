"""Products with a matrix that was packed beforehand: what inference is made of.

A network that is trained no more multiplies by the same matrices for ever. `pack` lays one out
in panels of `TILE_COLUMNS` columns, so that a register tile reads its part from end to end; the
last panel is filled up with zeros.
"""

from __future__ import annotations

import numpy as np

from .checks import Array
from .tile import TILE_COLUMNS


def panels_of(columns: int) -> int:
    """Return how many panels a matrix of so many columns takes."""
    return -(-columns // TILE_COLUMNS)


def pack(b: Array) -> Array:
    """Lay a matrix (K, N) out in panels (panels, K, TILE_COLUMNS), zeros behind column N."""
    k, n = b.shape
    packed = np.zeros((panels_of(n), k, TILE_COLUMNS), b.dtype)
    for panel, columns in enumerate(range(0, n, TILE_COLUMNS)):
        part = b[:, columns : columns + TILE_COLUMNS]
        packed[panel, :, : part.shape[1]] = part
    return packed


def fill_up(row: Array) -> Array:
    """Return numbers, one per column (N,), with zeros up to whole panels."""
    return np.concatenate([row, np.zeros(-len(row) % TILE_COLUMNS, row.dtype)])
