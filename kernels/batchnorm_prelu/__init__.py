"""Batch normalisation followed by PReLU, fused: the twin of `batchnorm` and `prelu` in a row.

    z = gamma * (x - mean) / sqrt(var + eps) + beta,    y = z where z > 0, else slope * z

| rung  | the one idea                                                                 |
|-------|------------------------------------------------------------------------------|
| naive | the naive rungs of the two ops, one after the other                          |
| numpy | their numpy rungs                                                            |
| fused | z is never stored: computed again where it is needed, from x                 |

One after the other, forward and backward pass 13 times over arrays as large as x; fused, 8
times, and one array less is kept for the backward pass. Forward and backward compute z by one
expression from the same rounded mean, so that they agree on its sign to the last bit; what
that rounding costs is no more than rounding x to float32 did.

`activate`, `add_sums` and `go_back` do an image, or a few rows, that sit in cache, for other
kernels to call; they keep what belongs to a channel in registers for two rows or more.

`plain` holds the checks and the first two rungs, `fused` the third.
"""

from __future__ import annotations

from ..ladder import Ladder
from . import fused, plain
from .fused import activate, add_sums, from_sums, go_back, go_back_loop, spread
from .plain import check_given

__all__ = [
    "activate",
    "add_sums",
    "backward",
    "check_given",
    "forward",
    "from_sums",
    "go_back",
    "go_back_loop",
    "spread",
]

forward = Ladder(
    "batchnorm_prelu.forward",
    check=plain.check_forward,
    naive=plain.forward_naive,
    numpy=plain.forward_numpy,
    fused=fused.forward_fused,
)
backward = Ladder(
    "batchnorm_prelu.backward",
    check=plain.check_backward,
    naive=plain.backward_naive,
    numpy=plain.backward_numpy,
    fused=fused.backward_fused,
)
