"""Linear (dense) layer: y (..., Cout) = x (..., Cin) @ w (Cin, Cout).

The same arithmetic as a pointwise convolution, with rows for pixels, so it has the same rungs;
the loops are in `gemm`. Where there are few columns, one per class, `gemm.narrow` does the work.
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
