"""Crops, flips, cutout and normalisation: pad the picture, then cut the window out."""

from __future__ import annotations

from typing import Any

import numpy as np

MODES: dict[str, Any] = {"zero": "constant", "reflect": "reflect", "edge": "edge"}


def augment(
    images: Any,
    index: Any,
    pose: Any,
    mean: Any,
    std: Any,
    *,
    fill: str = "zero",
    cutout: int = 0,
) -> Any:
    """Normalise first, so that zeros padded on are zeros of the result."""
    normalised = (images.astype(np.float64) / 255 - mean) / std
    _, h, w, _ = images.shape
    results = []
    for i, (dy, dx, flip, cut_y, cut_x) in zip(index, pose, strict=True):
        margin = (h - 1, h - 1), (w - 1, w - 1), (0, 0)
        padded = np.pad(normalised[i], margin, mode=MODES[fill])
        window = padded[h - 1 + dy :, w - 1 + dx :][:h, :w]
        picture = (window[:, ::-1] if flip else window).copy()
        picture[cut_y : cut_y + cutout, cut_x : cut_x + cutout] = 0
        results.append(picture)
    return np.array(results).reshape(len(results), *images.shape[1:])
