"""Convolution with stride, pads, dilation and groups (a cross-correlation, as everywhere).

    y[n, oy, ox, o] = sum over ky, kx, c of x[n, iy, ix, c] * w[ky, kx, c, o]
    iy = oy * stride + ky * dilation - top,  ix alike; zero outside the map

x (N, H, W, Cin), w (KH, KW, Cin / groups, Cout), y (N, OH, OW, Cout);
pads = (top, bottom, left, right). Output channel o belongs to group o // (Cout / groups).

| rung  | the one idea                                                                      |
|-------|-----------------------------------------------------------------------------------|
| naive | the sum as it stands: seven loops, one bounds test per product                    |
| numpy | strides turn the padded input into a view of all windows; one product per group   |
| blas  | a few rows of windows at a time are copied side by side, still in cache when      |
|       | BLAS multiplies them; such parts, cut by shape alone, run side by side            |
| simd  | the copies go straight to the register tile (`tile.dot_tile`): nothing is copied  |
|       | twice, no tile ends with an image, and where it pays no zero is multiplied; types |
|       | other than float32, and outputs or groups too narrow for the tile, run blas       |

The rungs numpy and blas multiply the zeros around a map like any pixel: beside an infinite or
NaN number (0 * inf is NaN) they give NaN where the naive rung leaves the product out. The rung
simd does so for some of them.

The windows of a whole batch (KH * KW times the input) are never stored by the last two rungs.
A 1x1 convolution at stride 1 needs no copy in blas; one group per channel is `depthwise`.

Each direction has a file of its own. They share `columns`, and the rung simd is made of
`axes` and `plan` (how a convolution is cut), `gather` (how operands are laid out) and `tiles`
(the loops).
"""

from __future__ import annotations

from ..ladder import Ladder
from . import backward_input as _input
from . import backward_weight as _weight
from . import forward as _forward

forward = Ladder(
    "conv2d.forward",
    check=_forward.check,
    naive=_forward.naive,
    numpy=_forward.numpy,
    blas=_forward.blas,
    simd=_forward.simd,
)
backward_input = Ladder(
    "conv2d.backward_input",
    check=_input.check,
    naive=_input.naive,
    numpy=_input.numpy,
    blas=_input.blas,
    simd=_input.simd,
)
backward_weight = Ladder(
    "conv2d.backward_weight",
    check=_weight.check,
    naive=_weight.naive,
    numpy=_weight.numpy,
    blas=_weight.blas,
    simd=_weight.simd,
)
