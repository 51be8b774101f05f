"""Linear (dense) layer: y (..., Cout) = x (..., Cin) @ w (Cin, Cout).

The same arithmetic as a pointwise convolution, with rows for pixels; the loops are in
`gemm`. It has ladders of its own because their shapes differ: few rows here, 100,352 there,
and the table in `ladder` picks by ladder and shape.
"""

from __future__ import annotations

from . import pointwise
from .ladder import Ladder

forward = Ladder("linear.forward", check=pointwise.check_forward, **pointwise.forward_rungs)
backward_input = Ladder(
    "linear.backward_input",
    check=pointwise.check_backward_input,
    **pointwise.backward_input_rungs,
)
backward_weight = Ladder(
    "linear.backward_weight",
    check=pointwise.check_backward_weight,
    **pointwise.backward_weight_rungs,
)
