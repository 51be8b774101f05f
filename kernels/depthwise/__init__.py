"""Depthwise convolution: every channel has a kernel of its own (Sifre 2014; QuickNet s. 2.3).

    y[n, oy, ox, c] = sum over ky, kx of x[n, oy*s + ky - top, ox*s + kx - left, c] * w[ky, kx, c]

x (N, H, W, C), w (KH, KW, C), y (N, OH, OW, C); pads = (top, bottom, left, right).

| rung          | the one idea                                                                |
|---------------|-----------------------------------------------------------------------------|
| python        | the sum as it stands, six loops, one bounds test per product; not compiled  |
| numpy         | one shifted slice of the padded input per tap                               |
| naive         | the loops of python, compiled                                               |
| channels_last | channels innermost: contiguous vectors, one test per C products             |
| border        | inside the map no tests, so nine products make one sum in a register        |
| rows          | a row is copied once, with its border of zeros, and used nine times         |
| vectors       | explicit vectors: weights and a sliding window in registers                 |
| simd          | the same on all threads                                                     |
| `separable`   | a ladder of its own: depthwise goes on where batch norm and PReLU left off, |
|               | and its output goes into the pointwise product before it leaves the cache   |

Each rung keeps what the one before it has won; all but the last run on one thread (numpy too:
it calls no BLAS). Each docstring says what the rung saves and what to measure. Backward, both
gradients have a loop of their own (`_input` for x, `_weight` for w) in channels_last, border and
rows; python and naive make them side by side, and the explicit vectors in one pass again.

There are few products per byte here (9 per number read), so memory decides: every number is
read once from far away, then nine times from the first-level cache.

`plain` holds the first three rungs, `inner` the next two, then `rows` and `simd`; the loops of
`simd` are in `sliding` and, for stride 2, `striding`.

numpy and all rungs from rows on multiply the zeros around a map like any pixel. So where a
number is infinite or NaN (0 * inf is NaN), they give NaN along the border too, where the others
leave the product out: forward for such a weight, backward for such a weight, pixel or gradient.
"""

from __future__ import annotations

from ..ladder import Ladder
from . import inner, plain, rows, simd

forward = Ladder(
    "depthwise.forward",
    check=plain.check_forward,
    slow=("python",),
    python=plain.forward_python,
    numpy=plain.forward_numpy,
    naive=plain.forward_naive,
    channels_last=inner.forward_channels_last,
    border=inner.forward_border,
    rows=rows.forward_rows,
    vectors=simd.forward_vectors,
    simd=simd.forward_simd,
)
backward = Ladder(
    "depthwise.backward",
    check=plain.check_backward,
    slow=("python",),
    python=plain.backward_python,
    numpy=plain.backward_numpy,
    naive=plain.backward_naive,
    channels_last=inner.backward_channels_last,
    border=inner.backward_border,
    rows=rows.backward_rows,
    vectors=simd.backward_vectors,
    simd=simd.backward_simd,
)
