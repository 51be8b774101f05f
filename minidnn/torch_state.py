"""Weights to and from PyTorch: the same names, other layouts; torch itself is not imported.

| layer           | here                  | PyTorch                |
|-----------------|-----------------------|------------------------|
| Conv2d          | (KH, KW, Cin/g, Cout) | (Cout, Cin/g, KH, KW)  |
| DepthwiseConv2d | (KH, KW, C)           | (C, 1, KH, KW)         |
| PointwiseConv2d | (Cin, Cout)           | (Cout, Cin, 1, 1)      |
| Linear          | (Cin, Cout)           | (Cout, Cin)            |

A parameter that two layers share has one name here, the first; PyTorch lists it under both, so
leave the second out of what is loaded.

Behind a Flatten, features count as H, W, C here and as C, H, W there, so the rows of a Linear
(and batch norm or PReLU between the two) are permuted. Which layers those are is found by
tracing the model, which takes its `input_shape`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from minidnn.errors import ConfigError, StateDictError
from minidnn.graph import Graph, trace
from minidnn.layers.conv import Conv2d, DepthwiseConv2d, PointwiseConv2d
from minidnn.layers.dropout import Dropout
from minidnn.layers.linear import Flatten, Linear
from minidnn.module import Module
from minidnn.tensor import Array

Image: TypeAlias = tuple[int, int, int]


class _Entry(NamedTuple):
    """How one array is stored on the two sides.

    `order`: our axes in torch's order; `one_at`: where torch has axes of size 1 besides;
    `image`: (H, W, C) if our first axis counts the features of a flattened image.
    """

    order: tuple[int, ...]
    one_at: tuple[int, ...]
    image: Image | None

    def to_torch(self, a: Array) -> Array:
        if self.image is not None:
            h, w, c = self.image
            a = a.reshape(h, w, c, -1).transpose(2, 0, 1, 3).reshape(a.shape)
        return np.expand_dims(a.transpose(self.order), self.one_at).copy()

    def from_torch(self, a: Array) -> Array:
        a = a.squeeze(self.one_at).transpose(np.argsort(self.order))
        if self.image is not None:
            h, w, c = self.image
            a = a.reshape(c, h, w, -1).transpose(1, 2, 0, 3).reshape(a.shape)
        return a.copy()


def _flattened(graph: Graph) -> dict[int, Image]:
    """Return id(module) -> (H, W, C) for modules whose input is a flattened map of that shape.

    A value counts as flattened from the reshape of (N, H, W, C) to (N, H * W * C) on, through
    every op that keeps its shape.
    """
    images: dict[int, Image] = {}
    modules: dict[int, Image] = {}
    for step in graph.steps:
        if not step.inputs or step.inputs[0] is None:
            continue
        source, target = graph.values[step.inputs[0]].shape, graph.values[step.output].shape
        if step.inputs[0] in images:
            modules[id(step.module)] = images[step.inputs[0]]
            if source == target:
                images[step.output] = images[step.inputs[0]]
        elif len(source) == 4 and len(target) == 2 and source[0] == target[0]:
            n, h, w, c = source
            if target == (n, h * w * c) and step.op.name in ("reshape", "flatten"):
                images[step.output] = (h, w, c)
    return modules


def _entries(model: Module, input_shape: Sequence[int] | None) -> dict[str, _Entry]:
    if input_shape is None and any(isinstance(m, Flatten) for m in model.modules()):
        raise ConfigError(
            "torch state: this model flattens images, whose features PyTorch counts in another "
            "order; expected input_shape=(N, H, W, C), to find the layers behind"
        )
    images = {} if input_shape is None else _flattened(trace(model, input_shape))
    entries, seen = {}, set()
    for path, module in model.named_modules():
        if isinstance(module, Dropout):
            continue  # PyTorch keeps no state for it
        for name, value in module._members():
            if not isinstance(value, Module) and id(value) not in seen:
                seen.add(id(value))
                entry = _entry(module, name, value.data, images.get(id(module)))
                entries[f"{path}.{name}" if path else name] = entry
    return entries


def _entry(module: Module, name: str, data: Array, image: Image | None) -> _Entry:
    """Return how one array of a layer is stored."""
    straight = tuple(range(data.ndim))
    if isinstance(module, Linear):
        return _Entry(straight[::-1], (), image if name == "weight" else None)
    if name == "weight" and isinstance(module, Conv2d):
        return _Entry((3, 2, 0, 1), (), None)
    if name == "weight" and isinstance(module, DepthwiseConv2d):
        return _Entry((2, 0, 1), (1,), None)
    if name == "weight" and isinstance(module, PointwiseConv2d):
        return _Entry((1, 0), (2, 3), None)
    per_feature = image is not None and data.shape == (math.prod(image),)
    return _Entry(straight, (), image if per_feature else None)


def _as_array(value: Any) -> Array:
    """Return a torch tensor (on any device) or array as an ndarray."""
    if hasattr(value, "detach"):
        value = value.detach().cpu().numpy()
    return np.asarray(value)


def to_torch_state_dict(
    model: Module, input_shape: Sequence[int] | None = None
) -> dict[str, Array]:
    """Return the model's state in PyTorch's layouts, as arrays for `torch.from_numpy`.

    Parameters
    ----------
    model : Module
    input_shape : (N, H, W, C), optional
        Needed for models that flatten images.

    Raises
    ------
    ConfigError
        If the model has a Flatten and `input_shape` is missing.
    """
    entries = _entries(model, input_shape)
    own = model.state_dict()
    return {name: entry.to_torch(own[name]) for name, entry in entries.items()}


def load_torch_state_dict(
    model: Module, state: Mapping[str, Any], input_shape: Sequence[int] | None = None
) -> None:
    """Copy a PyTorch model's state in; all or nothing.

    Parameters
    ----------
    model : Module
        Its layers have the names of the PyTorch model's.
    state : mapping of str to torch.Tensor or ndarray
        What ``state_dict()`` of the PyTorch model returns.
    input_shape : (N, H, W, C), optional
        Needed for models that flatten images.

    Raises
    ------
    StateDictError
        Naming every entry that is missing, unexpected or misshapen; the model is unchanged.
    ConfigError
        If the model has a Flatten and `input_shape` is missing.
    """
    entries = _entries(model, input_shape)
    own = model.state_dict()
    arrays = {name: _as_array(value) for name, value in state.items()}
    wrong = []
    for name, entry in entries.items():
        if name in arrays:
            expected = entry.to_torch(own[name]).shape
            if arrays[name].shape == expected:
                arrays[name] = entry.from_torch(arrays[name])
            else:
                wrong.append(f"{name}: expected shape {expected}, got {arrays[name].shape}")
    if wrong:
        raise StateDictError(
            f"PyTorch state does not fit {type(model).__name__}: " + "; ".join(wrong)
        )
    without_counterpart = {name: a for name, a in own.items() if name not in entries}
    model.load_state_dict({**without_counterpart, **arrays})
