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
    from minidnn.ema import EMA
    from minidnn.fusion import fuse, unfuse
    from minidnn.gradcheck import check_gradients
    from minidnn.graph import trace
    from minidnn.layers.activation import LeakyReLU, PReLU, ReLU
    from minidnn.layers.conv import Conv2d, DepthwiseConv2d, PointwiseConv2d, SeparableConv2d
    from minidnn.layers.dropout import Dropout
    from minidnn.layers.linear import Flatten, Linear
    from minidnn.layers.norm import BatchNorm1d, BatchNorm2d
    from minidnn.layers.pool import AvgPool2d, GlobalAvgPool2d, MaxPool2d
    from minidnn.losses import (
        CrossEntropyLoss,
        MSELoss,
        accuracy,
        cross_entropy,
        log_softmax,
        mse_loss,
        softmax,
    )
    from minidnn.module import Buffer, Module, Parameter, Sequential
    from minidnn.optim import SGD, Adam, AdamW, RMSProp, clip_grad_norm, decay_groups
    from minidnn.plan.compiler import compile
    from minidnn.quantization.post_training import quantize
    from minidnn.tensor import Tensor, no_grad, op
    from minidnn.torch_state import load_torch_state_dict, to_torch_state_dict
    from minidnn.warmup import warm_up

__version__ = "0.1.0"

# Name -> module that defines it; the list above tells type checkers the same.
_HOME = {
    "Adam": "optim",
    "AdamW": "optim",
    "AvgPool2d": "layers.pool",
    "BatchNorm1d": "layers.norm",
    "BatchNorm2d": "layers.norm",
    "Buffer": "module",
    "Conv2d": "layers.conv",
    "CrossEntropyLoss": "losses",
    "DepthwiseConv2d": "layers.conv",
    "Dropout": "layers.dropout",
    "EMA": "ema",
    "Flatten": "layers.linear",
    "GlobalAvgPool2d": "layers.pool",
    "LeakyReLU": "layers.activation",
    "Linear": "layers.linear",
    "MSELoss": "losses",
    "MaxPool2d": "layers.pool",
    "Module": "module",
    "PReLU": "layers.activation",
    "Parameter": "module",
    "PointwiseConv2d": "layers.conv",
    "RMSProp": "optim",
    "ReLU": "layers.activation",
    "SGD": "optim",
    "SeparableConv2d": "layers.conv",
    "Sequential": "module",
    "Tensor": "tensor",
    "accuracy": "losses",
    "check_gradients": "gradcheck",
    "clip_grad_norm": "optim",
    "compile": "plan.compiler",
    "concat": "arithmetic",
    "cross_entropy": "losses",
    "decay_groups": "optim",
    "fuse": "fusion",
    "load_torch_state_dict": "torch_state",
    "log_softmax": "losses",
    "mse_loss": "losses",
    "no_grad": "tensor",
    "op": "tensor",
    "pad": "arithmetic",
    "quantize": "quantization.post_training",
    "softmax": "losses",
    "to_torch_state_dict": "torch_state",
    "trace": "graph",
    "unfuse": "fusion",
    "warm_up": "warmup",
}

__all__ = [
    "EMA",
    "SGD",
    "Adam",
    "AdamW",
    "AvgPool2d",
    "BatchNorm1d",
    "BatchNorm2d",
    "Buffer",
    "Conv2d",
    "CrossEntropyLoss",
    "DepthwiseConv2d",
    "Dropout",
    "Flatten",
    "GlobalAvgPool2d",
    "LeakyReLU",
    "Linear",
    "MSELoss",
    "MaxPool2d",
    "Module",
    "PReLU",
    "Parameter",
    "PointwiseConv2d",
    "RMSProp",
    "ReLU",
    "SeparableConv2d",
    "Sequential",
    "Tensor",
    "accuracy",
    "check_gradients",
    "clip_grad_norm",
    "compile",
    "concat",
    "cross_entropy",
    "decay_groups",
    "fuse",
    "load_torch_state_dict",
    "log_softmax",
    "mse_loss",
    "no_grad",
    "op",
    "pad",
    "quantize",
    "softmax",
    "to_torch_state_dict",
    "trace",
    "unfuse",
    "warm_up",
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
