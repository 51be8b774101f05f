"""Batch normalisation over all axes but the last (Ioffe and Szegedy 2015, algorithms 1 and 2).

Training:   y = gamma * (x - mean) / sqrt(var + eps) + beta, mean and var of this batch
Inference:  the same with given mean and var

| rung  | the one idea                                                              |
|-------|---------------------------------------------------------------------------|
| naive | channel by channel, three loops over its column: mean, variance, result   |
| numpy | whole-array expressions in float64                                        |
| fused | all threads; forward reads x twice, backward twice; sums in vectors       |

`forward` returns the biased variance (divided by the number of rows); running statistics
want the unbiased one, which is the layer's business.

Accuracy: float32 sums are never longer than BLOCK rows, and are of differences from the
block's own first row, so a mean far from zero costs nothing; blocks and chunks are combined
in float64 in a fixed order (Chan, Golub and LeVeque 1979).

Sums keep one vector of channels in registers and run down a strip of rows that fits the
first-level cache, then take the next channels. Loops that write go row by row instead: that
is how memory takes whole cache lines without reading them first.

`plain` holds the checks and the first two rungs, `fused` the third.
"""

from __future__ import annotations

from ..ladder import Ladder
from . import fused, plain
from .fused import (
    BLOCK,
    GRAIN,
    add_block,
    add_statistics,
    add_wide,
    combine,
    row_chunks,
    statistics,
    strip_rows,
)
from .plain import as_rows, check_backward, check_forward, check_inference, inverse_std, quiet

__all__ = [
    "BLOCK",
    "GRAIN",
    "add_block",
    "add_statistics",
    "add_wide",
    "as_rows",
    "backward",
    "check_backward",
    "check_forward",
    "check_inference",
    "combine",
    "forward",
    "inference",
    "inference_backward",
    "inverse_std",
    "quiet",
    "row_chunks",
    "statistics",
    "strip_rows",
]

forward = Ladder(
    "batchnorm.forward",
    check=check_forward,
    naive=plain.forward_naive,
    numpy=plain.forward_numpy,
    fused=fused.forward_fused,
)
inference = Ladder(
    "batchnorm.inference",
    check=check_inference,
    naive=plain.inference_naive,
    numpy=plain.inference_numpy,
    fused=fused.inference_fused,
)
backward = Ladder(
    "batchnorm.backward",
    check=check_backward,
    naive=plain.backward_naive,
    numpy=plain.backward_numpy,
    fused=fused.backward_fused,
)
inference_backward = Ladder(
    "batchnorm.inference_backward",
    check=check_backward,
    naive=plain.inference_backward_naive,
    numpy=plain.inference_backward_numpy,
    fused=fused.inference_backward_fused,
)
