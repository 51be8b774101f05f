"""Cases of the activation kernels."""

from __future__ import annotations

from tests.cases import CASES, Case, drawn
from tests.oracles import activation as oracle

SHAPES = {
    "n1_c1": ((1, 1, 1, 1), (1,)),
    "odd_c7": ((2, 3, 5, 7), (7,)),
    "c17": ((3, 4, 4, 17), (17,)),
    "c33_rows": ((5, 33), (33,)),
    "many_rows": ((130, 16), (16,)),
    "per_layer": ((2, 3, 3, 5), (1,)),
    "per_element": ((3, 4, 3, 5), (4, 3, 5)),
    "per_element_cut": ((1, 41, 8, 32), (41, 8, 32)),
    "per_element_rows": ((30, 41, 8, 16), (41, 8, 16)),
}

CASES["prelu.forward"] = [
    Case(name, drawn(x, slope), oracle.prelu, terms=1) for name, (x, slope) in SHAPES.items()
]
CASES["prelu.backward"] = [
    Case(name, drawn(x, x, slope), oracle.prelu_backward, terms=2 * 130)
    for name, (x, slope) in SHAPES.items()
]

PLAIN = {
    "n1_c1": (1, 1, 1, 1),
    "odd_c7": (2, 3, 5, 7),
    "rows": (5, 33),
    "vector": (17,),
    "empty": (0, 4),
    "chunks": (30, 61, 61),
}
# A slope that float32 holds exactly, so that kernel and oracle use the same.
SLOPE = {"slope": 0.125}

CASES["relu.forward"] = [Case(name, drawn(x), oracle.relu, terms=1) for name, x in PLAIN.items()]
CASES["relu.backward"] = [
    Case(name, drawn(x, x), oracle.relu_backward, terms=1) for name, x in PLAIN.items()
]
CASES["leaky_relu.forward"] = [
    Case(name, drawn(x), oracle.leaky_relu, terms=1, settings=SLOPE) for name, x in PLAIN.items()
]
CASES["leaky_relu.backward"] = [
    Case(name, drawn(x, x), oracle.leaky_relu_backward, terms=1, settings=SLOPE)
    for name, x in PLAIN.items()
]
