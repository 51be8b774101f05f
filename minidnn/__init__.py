"""minidnn: a deep-learning engine you can read, on NumPy and Numba, for CPUs.

Names are imported when first used, so ``import minidnn`` costs nothing and importing one
kernel does not import the engine.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from minidnn.arithmetic import concat, pad
    from minidnn.graph import trace
    from minidnn.layers.activation import PReLU
    from minidnn.module import Buffer, Module, Parameter, Sequential
    from minidnn.optim import EMA, SGD, Adam, AdamW, RMSProp, clip_grad_norm, decay_groups
    from minidnn.tensor import Tensor, no_grad, op

__version__ = "0.1.0"

# Name -> module that defines it; the list above tells type checkers the same.
_HOME = {
    "Adam": "optim",
    "AdamW": "optim",
    "Buffer": "module",
    "EMA": "optim",
    "Module": "module",
    "PReLU": "layers.activation",
    "Parameter": "module",
    "RMSProp": "optim",
    "SGD": "optim",
    "Sequential": "module",
    "Tensor": "tensor",
    "clip_grad_norm": "optim",
    "concat": "arithmetic",
    "decay_groups": "optim",
    "no_grad": "tensor",
    "op": "tensor",
    "pad": "arithmetic",
    "trace": "graph",
}

__all__ = [
    "EMA",
    "SGD",
    "Adam",
    "AdamW",
    "Buffer",
    "Module",
    "PReLU",
    "Parameter",
    "RMSProp",
    "Sequential",
    "Tensor",
    "clip_grad_norm",
    "concat",
    "decay_groups",
    "no_grad",
    "op",
    "pad",
    "trace",
]

# `minidnn/kernels` and `minidnn/models` are symbolic links in a checkout. Where links became
# text files (Windows, some archives) the folders beside this package serve instead.
if not (Path(__file__).parent / "kernels").is_dir():
    __path__.append(str(Path(__file__).parent.parent))


def __getattr__(name: str) -> Any:
    if name in _HOME:
        value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
