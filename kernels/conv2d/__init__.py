"""Convolution with stride, pads, dilation and groups (a cross-correlation, as everywhere).

    y[n, oy, ox, o] = sum over ky, kx, c of x[n, iy, ix, c] * w[ky, kx, c, o]
    iy = oy * stride + ky * dilation - top,  ix alike; zero outside the map

x (N, H, W, Cin), w (KH, KW, Cin / groups, Cout), y (N, OH, OW, Cout);
pads = (top, bottom, left, right). Output channel o belongs to group o // (Cout / groups).

| rung     | the one idea                                                                   |
|----------|--------------------------------------------------------------------------------|
| naive    | direct: the sum as it stands, seven loops, one bounds test per window's pixel  |
| numpy    | strides turn the padded input into a view of all windows; one product per group|
| im2col   | all windows are written down as one matrix: one product of the fastest kind    |
| blas     | blocked: a few rows of windows at a time are copied side by side, still in     |
|          | cache when BLAS multiplies them; such parts, cut by shape alone, run side by   |
|          | side                                                                           |
| winograd | F(2x2, 3x3): 16 products for four outputs in place of 36, and more additions;  |
|          | shapes other than 3x3 at stride 1 in one group, and float64, run simd          |
| simd     | the copies go straight to the register tile (`tile.dot_tile`): nothing is      |
|          | copied twice, no tile ends with an image, and where it pays no zero is         |
|          | multiplied; types other than float32, and outputs or groups too narrow for the |
|          | tile, run blas                                                                 |

The rung that runs by default is simd. Where channels are many winograd can be faster, but it
rounds more, and lets one infinite number spoil its neighbours (see `winograd`).

The rungs numpy, im2col, blas and winograd multiply the zeros around a map like any pixel: beside
an infinite or NaN number (0 * inf is NaN) they give NaN where the naive rung leaves the product
out. The rung simd does so for some of them.

The windows of a whole batch (KH * KW times the input) are stored by numpy and im2col alone.
A 1x1 convolution at stride 1 needs no copy in blas; one group per channel is `depthwise`.

Each direction has a file of its own, and so have im2col and winograd. They share `columns`, and
the rung simd is made of `axes` and `plan` (how a convolution is cut), `gather` (how operands are
laid out) and `tiles` (the loops).
"""

from __future__ import annotations

from ..ladder import Ladder
from . import backward_input as _input
from . import backward_weight as _weight
from . import forward as _forward
from . import im2col, winograd

forward = Ladder(
    "conv2d.forward",
    check=_forward.check,
    naive=_forward.naive,
    numpy=_forward.numpy,
    im2col=im2col.forward,
    blas=_forward.blas,
    winograd=winograd.forward,
    simd=_forward.simd,
)
backward_input = Ladder(
    "conv2d.backward_input",
    check=_input.check,
    naive=_input.naive,
    numpy=_input.numpy,
    im2col=im2col.backward_input,
    blas=_input.blas,
    winograd=winograd.backward_input,
    simd=_input.simd,
)
backward_weight = Ladder(
    "conv2d.backward_weight",
    check=_weight.check,
    naive=_weight.naive,
    numpy=_weight.numpy,
    im2col=im2col.backward_weight,
    blas=_weight.blas,
    winograd=winograd.backward_weight,
    simd=_weight.simd,
)
