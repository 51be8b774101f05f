"""`shapes`: ten classes of generated 32x32 RGB pictures, the data set that needs no download.

Every picture is a function of (seed, split, index) alone. Position, size, rotation (any angle),
colours, background and noise are random, and the figure may be lighter or darker than what is
behind it, so no single pixel tells anything: a linear classifier stays near chance, while the
outline tells all.

Figures are drawn from signed distances: `d(u, v)` is negative inside, in units of the figure's
radius; one pixel around d == 0 is blended, which makes smooth edges.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minidnn.data.dataset import Dataset
from minidnn.errors import ConfigError

Array = NDArray[Any]
Rng = np.random.Generator

SIZE = 32
SIZES = {"train": 10_000, "test": 2_000}

# Pictures are drawn in blocks, each from a generator of its own and with every class equally often.
BLOCK = 250


def _disk(u: Array, v: Array) -> Array:
    return np.hypot(u, v) - np.float32(0.85)


def _ring(u: Array, v: Array) -> Array:
    return np.abs(np.hypot(u, v) - np.float32(0.72)) - np.float32(0.2)


def _box(u: Array, v: Array, half_u: float, half_v: float) -> Array:
    return np.maximum(np.abs(u) - np.float32(half_u), np.abs(v) - np.float32(half_v))


def _square(u: Array, v: Array) -> Array:
    return _box(u, v, 0.75, 0.75)


def _polygon_edge(u: Array, v: Array, angle: float, distance: float) -> Array:
    """Return the distance beyond a line `distance` from the centre that faces `angle`."""
    return u * np.float32(np.cos(angle)) + v * np.float32(np.sin(angle)) - np.float32(distance)


def _triangle(u: Array, v: Array) -> Array:
    edges = [_polygon_edge(u, v, np.pi / 2 + k * 2 * np.pi / 3, 0.5) for k in range(3)]
    return np.maximum(np.maximum(edges[0], edges[1]), edges[2])


def _cross(u: Array, v: Array) -> Array:
    return np.minimum(_box(u, v, 1.0, 0.27), _box(u, v, 0.27, 1.0))


def _star(u: Array, v: Array) -> Array:
    """Five points: inside where at least four of the pentagram's five lines hold."""
    edges = np.stack([_polygon_edge(u, v, k * 2 * np.pi / 5, 0.34) for k in range(5)])
    edges.sort(axis=0)
    return np.asarray(edges[3])


def _bars(u: Array, v: Array) -> Array:
    stripe = np.abs(np.abs(v) - np.float32(0.6)) - np.float32(0.21)
    return np.maximum(stripe, np.abs(u) - np.float32(0.95))


def _crescent(u: Array, v: Array) -> Array:
    hole = np.float32(0.72) - np.hypot(u - np.float32(0.5), v)
    return np.maximum(np.hypot(u, v) - np.float32(0.95), hole)


def _checker(u: Array, v: Array) -> Array:
    """Two squares that touch at a corner."""
    return np.minimum(
        _box(u - np.float32(0.43), v - np.float32(0.43), 0.4, 0.4),
        _box(u + np.float32(0.43), v + np.float32(0.43), 0.4, 0.4),
    )


def _dots(u: Array, v: Array) -> Array:
    """Three disks at the corners of a triangle."""
    disks = [
        np.hypot(u - np.float32(0.68 * np.cos(a)), v - np.float32(0.68 * np.sin(a)))
        for a in np.arange(3) * 2 * np.pi / 3
    ]
    return np.minimum(np.minimum(disks[0], disks[1]), disks[2]) - np.float32(0.31)


FIGURES: dict[str, Callable[[Array, Array], Array]] = {
    "disk": _disk,
    "ring": _ring,
    "square": _square,
    "triangle": _triangle,
    "cross": _cross,
    "star": _star,
    "bars": _bars,
    "crescent": _crescent,
    "checker": _checker,
    "dots": _dots,
}
CLASSES = list(FIGURES)


def draw_shapes(
    split: str = "train", *, count: int | None = None, seed: int = 0, start: int = 0
) -> Dataset:
    """Draw pictures ``start`` to ``start + count`` of a split.

    Parameters
    ----------
    split : {"train", "test"}
        The two never share a picture, nor the random numbers it is drawn from.
    count : int, optional
        How many; default 10,000 for training and 2,000 for testing.
    seed : int
        Another seed gives other pictures.
    start : int
        Index of the first picture.

    Returns
    -------
    Dataset
        Images (count, 32, 32, 3).

    Raises
    ------
    ConfigError
        If the split is unknown, or a number is out of range.
    """
    if split not in SIZES:
        raise ConfigError(f"shapes: split: expected one of {', '.join(SIZES)}, got {split!r}")
    count = SIZES[split] if count is None else count
    if count < 1 or start < 0 or seed < 0:
        raise ConfigError(
            f"shapes: expected count >= 1, start >= 0 and seed >= 0, "
            f"got {count}, {start} and {seed}"
        )
    stream = list(SIZES).index(split) << 32
    blocks = range(start // BLOCK, (start + count - 1) // BLOCK + 1)
    images = np.empty((len(blocks) * BLOCK, SIZE, SIZE, 3), np.uint8)
    labels = np.empty(len(images), np.int64)
    for i, block in enumerate(blocks):
        rng = np.random.Generator(np.random.Philox(key=[seed, stream + block]))
        here = slice(i * BLOCK, (i + 1) * BLOCK)
        labels[here] = rng.permutation(np.arange(BLOCK) % len(CLASSES))
        images[here] = _draw(labels[here], rng)
    first = start - blocks[0] * BLOCK
    chosen = slice(first, first + count)
    return Dataset(images[chosen], labels[chosen], list(CLASSES), "shapes")


def _draw(labels: Array, rng: Rng) -> Array:
    """Draw one block of pictures, (B,) labels -> (B, 32, 32, 3) uint8."""
    mask = _masks(labels, rng)[..., None]
    behind, front = _colours(len(labels), rng)
    light = behind + (front - behind) * mask
    light += rng.standard_normal(light.shape, np.float32) * _column(rng, len(labels), 3, 14)
    return np.asarray(np.clip(light + np.float32(0.5), 0, 255).astype(np.uint8))


def _column(rng: Rng, n: int, low: float, high: float) -> Array:
    """One uniform number per picture, shaped to multiply (B, 32, 32, C)."""
    return rng.uniform(low, high, (n, 1, 1, 1)).astype(np.float32)


def _grid() -> tuple[Array, Array]:
    """Pixel centres, counted from the middle of the picture: y (32, 1) and x (1, 32)."""
    axis = np.arange(SIZE, dtype=np.float32) - np.float32((SIZE - 1) / 2)
    return axis[:, None], axis[None, :]


def _masks(labels: Array, rng: Rng) -> Array:
    """Share of each pixel that the figure covers, (B, 32, 32) in 0..1."""
    n = len(labels)
    radius = rng.uniform(7.5, 12.5, (n, 1, 1)).astype(np.float32)
    room = SIZE / 2 - radius + 1
    cy, cx = (rng.uniform(-1, 1, (n, 1, 1)).astype(np.float32) * room for _ in range(2))
    angle = rng.uniform(-np.pi, np.pi, (n, 1, 1)).astype(np.float32)
    y, x = _grid()
    dy, dx = (y - cy) / radius, (x - cx) / radius
    u = np.cos(angle) * dx + np.sin(angle) * dy
    v = np.cos(angle) * dy - np.sin(angle) * dx
    mask = np.empty((n, SIZE, SIZE), np.float32)
    for label, distance in enumerate(FIGURES.values()):
        here = labels == label
        pixels_outside = distance(u[here], v[here]) * radius[here]
        mask[here] = np.clip(np.float32(0.5) - pixels_outside, 0, 1)
    return mask


def _colours(n: int, rng: Rng) -> tuple[Array, Array]:
    """Background (B, 32, 32, 3), a tinted gradient with waves, and figure's colour (B, 1, 1, 3).

    Their brightness differs by at least 65 of 255, in either direction.
    """
    brightness = _column(rng, n, 45, 210)
    contrast = _column(rng, n, 65, 120)
    lighter = rng.random((n, 1, 1, 1)) < 0.5
    lighter = np.where(brightness + contrast > 250, False, lighter)
    lighter = np.where(brightness - contrast < 5, True, lighter)
    front = brightness + np.where(lighter, contrast, -contrast) + _tint(rng, n, 40)
    y, x = _grid()
    slope = rng.uniform(-1, 1, (2, n, 1, 1, 1)).astype(np.float32)
    gradient = (slope[0] * y[None, :, :, None] + slope[1] * x[None, :, :, None]) / SIZE
    wave = rng.uniform(-0.7, 0.7, (2, n, 1, 1, 1)).astype(np.float32)
    phase = wave[0] * y[None, :, :, None] + wave[1] * x[None, :, :, None]
    waves = np.sin(phase + _column(rng, n, 0, 2 * np.pi)) * _column(rng, n, 0, 14)
    behind = brightness + _tint(rng, n, 30) + gradient * _tint(rng, n, 50) + waves
    return behind, front


def _tint(rng: Rng, n: int, strength: float) -> Array:
    """Per picture, how much each of red, green and blue departs from grey, summing to zero."""
    colour = rng.uniform(-strength, strength, (n, 1, 1, 3)).astype(np.float32)
    return np.asarray(colour - colour.mean(axis=-1, keepdims=True))
