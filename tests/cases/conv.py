"""Cases of convolution and depthwise convolution."""

from __future__ import annotations

import math
from typing import Any

from minidnn.kernels.windows import output_size
from tests.cases import CASES, Case, drawn
from tests.oracles import conv as oracle

# x, kernel size, Cout, settings
CONV: dict[str, tuple[tuple[int, ...], tuple[int, int], int, dict[str, Any]]] = {
    "n1_c1_1x1": ((1, 1, 1, 1), (1, 1), 1, {}),
    "1x1_no_copy": ((2, 3, 4, 7), (1, 1), 5, {}),
    "1x1_groups": ((2, 3, 4, 6), (1, 1), 4, {"groups": 2}),
    "1x1_stride2": ((2, 5, 4, 3), (1, 1), 2, {"stride": (2, 2)}),
    "5x5_stem": ((2, 8, 9, 3), (5, 5), 17, {}),
    "3x3_same": ((3, 4, 5, 7), (3, 3), 16, {"pads": (1, 1, 1, 1)}),
    "stride2_one_sided": ((2, 6, 6, 4), (3, 3), 5, {"stride": (2, 2), "pads": (0, 1, 0, 1)}),
    "uneven": (
        (2, 7, 9, 3),
        (2, 3),
        4,
        {"stride": (3, 2), "pads": (2, 0, 1, 3), "dilation": (2, 1)},
    ),
    "dilated": ((1, 9, 8, 2), (3, 3), 3, {"dilation": (2, 3), "pads": (1, 2, 3, 0)}),
    "groups": ((2, 5, 5, 6), (3, 3), 9, {"groups": 3, "pads": (1, 1, 1, 1)}),
    "per_channel": ((2, 5, 6, 17), (3, 3), 17, {"groups": 17, "pads": (1, 1, 1, 1)}),
    "per_channel_times2": ((1, 5, 6, 3), (3, 3), 6, {"groups": 3}),
    "rows_not_read": ((2, 7, 7, 2), (2, 2), 3, {"stride": (3, 3)}),
    "pads_wider_than_kernel": ((1, 2, 3, 2), (2, 2), 3, {"pads": (3, 2, 2, 4)}),
    # Wide enough, on both sides, for the register tile of any CPU.
    "tiles_n1_1x1_map": ((1, 1, 1, 16), (3, 3), 16, {"pads": (1, 1, 1, 1)}),
    "tiles_stride2": ((2, 7, 6, 17), (3, 3), 18, {"stride": (2, 2), "pads": (1, 1, 1, 1)}),
    "tiles_stride2_one_sided": (
        (2, 6, 6, 16),
        (3, 3),
        33,
        {"stride": (2, 2), "pads": (0, 1, 0, 1)},
    ),
    "tiles_uneven": (
        (2, 7, 9, 19),
        (2, 3),
        20,
        {"stride": (3, 2), "pads": (2, 0, 1, 3), "dilation": (2, 1)},
    ),
    "tiles_dilated": ((1, 9, 8, 16), (3, 3), 35, {"dilation": (2, 3), "pads": (1, 2, 3, 0)}),
    "tiles_dilated_stride2": (
        (1, 9, 8, 18),
        (3, 2),
        17,
        {"dilation": (2, 3), "stride": (2, 3), "pads": (1, 2, 3, 0)},
    ),
    "tiles_groups": ((2, 5, 5, 34), (3, 3), 38, {"groups": 2, "pads": (1, 1, 1, 1)}),
    "tiles_rows_not_read": ((2, 7, 7, 18), (2, 2), 16, {"stride": (3, 3)}),
    "tiles_pads_wider_than_kernel": ((1, 2, 3, 16), (2, 2), 17, {"pads": (3, 2, 2, 4)}),
    "many_lines": ((3, 20, 20, 33), (3, 3), 100, {"pads": (1, 1, 1, 1)}),
}


def _conv_shapes(
    x: tuple[int, ...], k: tuple[int, int], cout: int, settings: dict[str, Any]
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    groups = settings.get("groups", 1)
    window: dict[str, Any] = {"stride": (1, 1), "pads": (0, 0, 0, 0), **settings}
    window.pop("groups", None)
    size = output_size((x[1], x[2]), k, **window)
    return x, (*k, x[3] // groups, cout), (x[0], *size, cout)


for name, (x, k, cout, settings) in CONV.items():
    x, w, y = _conv_shapes(x, k, cout, settings)
    CASES.setdefault("conv2d.forward", []).append(
        Case(name, drawn(x, w), oracle.conv2d, math.prod(w[:3]), settings)
    )
    if name != "many_lines":  # the oracle would take minutes
        CASES.setdefault("conv2d.backward_input", []).append(
            Case(
                name,
                drawn(y, w),
                oracle.conv2d_backward_input,
                k[0] * k[1] * w[3],
                {**settings, "size": (x[1], x[2])},
            )
        )
    CASES.setdefault("conv2d.backward_weight", []).append(
        Case(
            name,
            drawn(y, x),
            oracle.conv2d_backward_weight,
            math.prod(y[:3]),
            {**settings, "kernel_size": k},
        )
    )

# x, kernel size, stride, pads
DEPTHWISE: dict[str, tuple[tuple[int, ...], tuple[int, int], dict[str, Any]]] = {
    "n1_c1": ((1, 1, 1, 1), (3, 3), {"pads": (1, 1, 1, 1)}),
    "same_c7": ((2, 5, 6, 7), (3, 3), {"pads": (1, 1, 1, 1)}),
    "wide_c16": ((1, 4, 13, 16), (3, 3), {"pads": (1, 1, 1, 1)}),
    "3x3_map_c33": ((3, 3, 3, 33), (3, 3), {"pads": (1, 1, 1, 1)}),
    "2x2_map": ((2, 2, 2, 5), (3, 3), {"pads": (1, 1, 1, 1)}),
    "valid": ((2, 5, 5, 4), (3, 3), {}),
    "stride2_same": ((2, 7, 7, 17), (3, 3), {"stride": (2, 2), "pads": (1, 1, 1, 1)}),
    "stride2_one_sided": ((2, 6, 8, 8), (3, 3), {"stride": (2, 2), "pads": (0, 1, 0, 1)}),
    "stride2_vectors": ((2, 5, 8, 32), (3, 3), {"stride": (2, 2), "pads": (1, 1, 1, 1)}),
    "stride2_valid_c24": ((2, 6, 9, 24), (3, 3), {"stride": (2, 2)}),
    "stride2_1x1_map": ((3, 1, 1, 40), (3, 3), {"stride": (2, 2), "pads": (1, 1, 1, 1)}),
    "stride2_wide_pads": ((2, 4, 3, 17), (3, 3), {"stride": (2, 2), "pads": (5, 4, 3, 6)}),
    "stride2_uneven": ((2, 7, 5, 3), (3, 3), {"stride": (2, 1), "pads": (0, 1, 2, 1)}),
    "stride2_chunks": ((8, 14, 13, 33), (3, 3), {"stride": (2, 2), "pads": (1, 1, 1, 1)}),
    "channel_parts": ((4, 3, 3, 200), (3, 3), {"pads": (1, 1, 1, 1)}),
    "5x5": ((2, 6, 7, 16), (5, 5), {"pads": (2, 2, 2, 2)}),
    "7x7_stride2": ((1, 8, 9, 3), (7, 7), {"stride": (2, 2), "pads": (3, 3, 3, 3)}),
    "1x1": ((2, 3, 3, 4), (1, 1), {}),
    "2x4_uneven": ((2, 5, 7, 3), (2, 4), {"stride": (1, 3), "pads": (2, 0, 1, 3)}),
    "pads_wider_than_kernel": ((1, 2, 3, 2), (3, 3), {"pads": (4, 3, 5, 3)}),
    "rows_not_read": ((2, 7, 7, 2), (2, 2), {"stride": (3, 3)}),
    "vectors_valid": ((2, 5, 7, 16), (3, 3), {}),
    "vectors_1x1_map": ((1, 1, 1, 48), (3, 3), {"pads": (1, 1, 1, 1)}),
    "vectors_wide_uneven_pads": ((2, 5, 6, 32), (3, 3), {"pads": (3, 0, 2, 4)}),
    "chunks": ((16, 9, 9, 64), (3, 3), {"pads": (1, 1, 1, 1)}),
}
for name, (x, k, settings) in DEPTHWISE.items():
    _, _, y = _conv_shapes(x, k, x[3], settings)
    CASES.setdefault("depthwise.forward", []).append(
        Case(name, drawn(x, (*k, x[3])), oracle.depthwise, k[0] * k[1], settings)
    )
    CASES.setdefault("depthwise.backward", []).append(
        Case(name, drawn(y, x, (*k, x[3])), oracle.depthwise_backward, math.prod(y[:3]), settings)
    )
    CASES.setdefault("depthwise.backward_input", []).append(
        Case(
            name,
            drawn(y, (*k, x[3])),
            oracle.depthwise_backward_input,
            k[0] * k[1],
            {**settings, "size": (x[1], x[2])},
        )
    )
    CASES.setdefault("depthwise.backward_weight", []).append(
        Case(
            name,
            drawn(y, x),
            oracle.depthwise_backward_weight,
            math.prod(y[:3]),
            {**settings, "kernel_size": k},
        )
    )
