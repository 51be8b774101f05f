"""Depthwise convolution: every channel has a kernel of its own (Sifre 2014; QuickNet s. 2.3).

    y[n, oy, ox, c] = sum over ky, kx of x[n, oy*s + ky - top, ox*s + kx - left, c] * w[ky, kx, c]

x (N, H, W, C), w (KH, KW, C), y (N, OH, OW, C); pads = (top, bottom, left, right).

| rung          | the one idea                                                               |
|---------------|----------------------------------------------------------------------------|
| naive         | the sum as it stands, six loops, one bounds test per product               |
| numpy         | one shifted slice of the padded input per tap                              |
| channels_last | a row of pixels is one vector, its border copied along; nine taps a pass    |
| simd          | weights and a sliding window in registers; both gradients in one pass      |

There are few products per byte here (9 per number read), so memory decides: every number is
read once from far away, then nine times from the first-level cache.

`plain` holds the first two rungs, `rows` and `simd` one each; the loops of `simd` are in `sliding`
and, for stride 2, `striding`.

All but the naive rung multiply the zeros around a map like any pixel. So where a number is
infinite or NaN (0 * inf is NaN), they give NaN along the border too, where the naive rung
leaves the product out: forward for such a weight, backward for such a weight, pixel or gradient.
"""

from __future__ import annotations

from ..ladder import Ladder
from . import plain, rows, simd

forward = Ladder(
    "depthwise.forward",
    check=plain.check_forward,
    naive=plain.forward_naive,
    numpy=plain.forward_numpy,
    channels_last=rows.forward_channels_last,
    simd=simd.forward_simd,
)
backward = Ladder(
    "depthwise.backward",
    check=plain.check_backward,
    naive=plain.backward_naive,
    numpy=plain.backward_numpy,
    channels_last=rows.backward_channels_last,
    simd=simd.backward_simd,
)
