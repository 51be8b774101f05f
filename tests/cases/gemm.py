"""Cases of the matrix products, of the layers made of them, and of the bias."""

from __future__ import annotations

import numpy as np

from tests.cases import CASES, Case, drawn
from tests.oracles import gemm as oracle

# M, K, N; the last ones are cut by rows, by columns, and into chunks of the reduction.
PRODUCTS = {
    "1x1x1": (1, 1, 1),
    "one_row": (1, 17, 33),
    "one_column": (17, 33, 1),
    "odd": (33, 7, 17),
    "empty_reduction": (3, 0, 2),
    "rows_cut": (3000, 150, 130),
    "columns_cut": (5, 3000, 5000),
}

CASES["gemm.nn"] = [
    Case(name, drawn((m, k), (k, n)), oracle.nn, terms=k) for name, (m, k, n) in PRODUCTS.items()
]
CASES["gemm.nt"] = [
    Case(name, drawn((m, k), (n, k)), oracle.nt, terms=k) for name, (m, k, n) in PRODUCTS.items()
]
CASES["gemm.tn"] = [
    Case(name, drawn((k, m), (k, n)), oracle.tn, terms=k)
    for name, (m, k, n) in {
        **PRODUCTS,
        "reduction_cut": (50, 4111, 260),
        "both_cut": (400, 2100, 410),
    }.items()
]

# x without its channels, Cin, Cout
ROWS = {
    "one_row": ((1,), 17, 10),
    "batch": ((32,), 33, 16),
    "map_n1_c1": ((1, 1, 1), 1, 1),
    "map_odd": ((2, 3, 5), 7, 17),
}
CLASSES = {**ROWS, "few_columns": ((41,), 1030, 11), "many_columns": ((9,), 50, 40)}
for family, sizes in (("linear", CLASSES), ("pointwise", ROWS)):
    CASES[f"{family}.forward"] = [
        Case(name, drawn((*lead, i), (i, o)), oracle.matrix, terms=i)
        for name, (lead, i, o) in sizes.items()
    ]
    CASES[f"{family}.backward_input"] = [
        Case(name, drawn((*lead, o), (i, o)), oracle.matrix_backward_input, terms=o)
        for name, (lead, i, o) in sizes.items()
    ]
    CASES[f"{family}.backward_weight"] = [
        Case(name, drawn((*lead, o), (*lead, i)), oracle.matrix_backward_weight, terms=41)
        for name, (lead, i, o) in sizes.items()
    ]

CASES["pointwise.forward_bias_prelu"] = [
    Case(name, drawn((*lead, i), (i, o), (o,), (o,)), oracle.bias_prelu, terms=i + 1)
    for name, (lead, i, o) in {**ROWS, "rows_cut": ((3000,), 150, 130)}.items()
]
CASES["pointwise.forward_moments"] = [
    Case(name, drawn((*lead, i), (i, o)), oracle.moments, terms=max(i, int(np.prod(lead))))
    for name, (lead, i, o) in {**ROWS, "rows_cut": ((3000,), 150, 130)}.items()
]

BIAS = {"n1_c1": (1, 1), "odd_c7": (2, 3, 5, 7), "c17_rows": (33, 17), "chunks": (300, 33)}
CASES["bias.forward"] = [
    Case(name, drawn(shape, shape[-1:]), oracle.bias, terms=1) for name, shape in BIAS.items()
]
CASES["bias.backward"] = [
    Case(name, drawn(shape), oracle.bias_backward, terms=300) for name, shape in BIAS.items()
]
