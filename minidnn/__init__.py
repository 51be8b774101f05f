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
    from minidnn.tensor import Tensor, no_grad, op

__version__ = "0.1.0"

# Name -> module that defines it; the list above tells type checkers the same.
_HOME = {
    "Buffer": "module",
    "Module": "module",
    "PReLU": "layers.activation",
    "Parameter": "module",
    "Sequential": "module",
    "Tensor": "tensor",
    "concat": "arithmetic",
    "no_grad": "tensor",
    "op": "tensor",
    "pad": "arithmetic",
    "trace": "graph",
}

__all__ = [
    "Buffer",
    "Module",
    "PReLU",
    "Parameter",
    "Sequential",
    "Tensor",
    "concat",
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
