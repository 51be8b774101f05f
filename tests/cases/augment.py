"""Cases of the augmentation kernel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.cases import CASES, Case
from tests.oracles import augment as oracle


def _pictures(
    n: int, h: int, w: int, c: int, batch: int, reach: int
) -> Callable[[np.random.Generator], tuple[Any, ...]]:
    """Return what draws images, index, pose, mean and std."""

    def draw(rng: np.random.Generator) -> tuple[Any, ...]:
        images = rng.integers(0, 256, (n, h, w, c), dtype=np.uint8)
        index = rng.integers(0, n, batch)
        shifts = rng.integers(-reach, reach + 1, (batch, 2))
        flips = np.arange(batch)[:, None] % 2
        corners = rng.integers(0, min(h, w), (batch, 2))
        pose = np.concatenate([shifts, flips, corners], axis=1)
        return images, index, pose, rng.uniform(0.2, 0.8, c), rng.uniform(0.1, 0.4, c)

    return draw


CASES["augment.forward"] = [
    Case(name, _pictures(*sizes), oracle.augment, terms=4, settings=settings)
    for name, sizes, settings in (
        ("one_pixel", (1, 1, 1, 1, 1, 0), {}),
        ("one_pixel_reflect", (1, 1, 1, 3, 2, 0), {"fill": "reflect"}),
        ("plain", (4, 5, 7, 3, 6, 0), {}),
        ("zero", (4, 6, 5, 3, 9, 3), {"fill": "zero"}),
        ("reflect", (4, 6, 5, 3, 9, 4), {"fill": "reflect"}),
        ("edge", (4, 6, 5, 1, 9, 4), {"fill": "edge"}),
        ("cutout", (3, 8, 8, 3, 5, 2), {"fill": "reflect", "cutout": 3}),
        ("cutout_over_border", (3, 8, 9, 17, 5, 2), {"cutout": 6}),
        ("empty_batch", (3, 4, 4, 3, 0, 0), {}),
    )
]
