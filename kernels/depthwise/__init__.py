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
it calls no BLAS). Each docstring says what the rung saves and what to measure.

Three ladders go backward: backward_input (the gradient of x), backward_weight (that of w), and
backward, which layers use. Its rungs are those of the two, one after the other, up to rows;
the explicit vectors make both in one pass over dy.

There are few products per byte here (9 per number read), so memory decides: every number is
read once from far away, then nine times from the first-level cache.

`plain` holds the first three rungs, `inner` the next two, then `rows` and `simd`; the loops of
`simd` are in `sliding` and, for stride 2, `striding`.

numpy and all rungs from rows on multiply the zeros around a map like any pixel. So where a
number is infinite or NaN (0 * inf is NaN), they give NaN along the border too, where the others
leave the product out: forward for such a weight, backward for such a weight, pixel or gradient.
"""

from __future__ import annotations

from typing import Any

from ..checks import Array
from ..ladder import Ladder
from ..windows import Pads, Pair
from . import inner, plain, rows, simd

forward = Ladder(
    "depthwise.forward",
    check=plain.check_forward,
    python=plain.forward_python,
    numpy=plain.forward_numpy,
    naive=plain.forward_naive,
    channels_last=inner.forward_channels_last,
    border=inner.forward_border,
    rows=rows.forward_rows,
    vectors=simd.forward_vectors,
    simd=simd.forward_simd,
)
backward_input = Ladder(
    "depthwise.backward_input",
    check=plain.check_input,
    python=plain.input_python,
    numpy=plain.input_numpy,
    naive=plain.input_naive,
    channels_last=inner.input_channels_last,
    border=inner.input_border,
    rows=rows.input_rows,
    vectors=simd.input_vectors,
    simd=simd.input_simd,
)
backward_weight = Ladder(
    "depthwise.backward_weight",
    check=plain.check_weight,
    python=plain.weight_python,
    numpy=plain.weight_numpy,
    naive=plain.weight_naive,
    channels_last=inner.weight_channels_last,
    border=inner.weight_border,
    rows=rows.weight_rows,
    vectors=simd.weight_vectors,
    simd=simd.weight_simd,
)


def _both(rung: str) -> Any:
    """Return the rung of `backward` that makes one gradient after the other."""
    of_x, of_w = backward_input.rungs[rung], backward_weight.rungs[rung]

    def backward(
        dy: Array, x: Array, w: Array, *, stride: Pair = (1, 1), pads: Pads = (0, 0, 0, 0)
    ) -> tuple[Array, Array]:
        dx = of_x(dy, w, size=x.shape[1:3], stride=stride, pads=pads)
        return dx, of_w(dy, x, kernel_size=w.shape[:2], stride=stride, pads=pads)

    idea = (of_w.__doc__ or "").partition(":")[0]
    backward.__doc__ = f"{idea}: one gradient after the other, each as in its own ladder."
    return backward


backward = Ladder(
    "depthwise.backward",
    check=plain.check_backward,
    python=_both("python"),
    numpy=_both("numpy"),
    naive=_both("naive"),
    channels_last=_both("channels_last"),
    border=_both("border"),
    rows=_both("rows"),
    vectors=simd.backward_vectors,
    simd=simd.backward_simd,
)
