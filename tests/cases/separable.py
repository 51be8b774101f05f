"""Cases of the separable block: those large enough to go image by image, and those not."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.cases import CASES, Case, signed
from tests.oracles import separable as oracle

SAME, VALID = (1, 1, 1, 1), (0, 0, 0, 0)
# Shape of x, channels of y, slopes, pads.
SHAPES = {
    "one_pixel": ((1, 1, 1, 3), 5, 3, SAME),
    "odd_c7": ((3, 4, 5, 7), 9, 7, SAME),
    "by_image_c16": ((9, 15, 14, 16), 24, 16, SAME),
    "by_image_one_slope_valid": ((8, 16, 15, 32), 33, 1, VALID),
    # Two images to a group, and one left over.
    "by_group_lopsided": ((17, 11, 9, 16), 7, 16, (2, 0, 0, 1)),
}


def _args(name: str, *, backward: bool) -> Any:
    shape, c_out, slopes, pads = SHAPES[name]

    def args(rng: np.random.Generator) -> tuple[Any, ...]:
        x, c = signed(rng, *shape), shape[-1]
        rows = x.reshape(-1, c)
        gamma, beta, slope = signed(rng, c) + 0.5, signed(rng, c), signed(rng, slopes)
        given = (gamma, beta, slope, rows.mean(axis=0), rows.var(axis=0))
        args = (x, *given, signed(rng, 3, 3, c), signed(rng, c, c_out))
        size = shape[1] + pads[0] + pads[1] - 2, shape[2] + pads[2] + pads[3] - 2
        dy, d = signed(rng, shape[0], *size, c_out), signed(rng, shape[0], *size, c)
        return (dy, x, d, *args[1:]) if backward else args

    return args


def _settings(name: str) -> dict[str, Any]:
    return {"eps": 1e-3, "pads": SHAPES[name][3]}


CASES["separable.forward"] = [
    Case(name, _args(name, backward=False), oracle.forward, 9 * 1900, _settings(name))
    for name in SHAPES
]
CASES["separable.backward"] = [
    Case(
        f"{name}{'_frozen' * frozen}",
        _args(name, backward=True),
        oracle.backward,
        9 * 1900,
        {**_settings(name), "frozen": frozen},
    )
    for name in SHAPES
    for frozen in (False, True)
    if frozen or name != "one_pixel"
]
