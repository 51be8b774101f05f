"""Networks declared from layers, one file per network; `build` makes one by name."""

from __future__ import annotations

import importlib
import inspect
from typing import TYPE_CHECKING, Any

from minidnn.errors import ConfigError
from minidnn.kernels.ladder import unknown

if TYPE_CHECKING:
    import numpy as np

    from minidnn.module import Module

# Name -> (file, class or function in it, class whose arguments it takes). Files are imported
# when a network is built, so that listing the names costs nothing.
MODELS = {
    "quicknet": ("quicknet", "QuickNet", "QuickNet"),
    "quicknet_b": ("quicknet", "quicknet_b", "QuickNet"),
    "quicknet_elem": ("quicknet", "quicknet_elem", "QuickNet"),
    "plain_cnn": ("plain_cnn", "PlainCNN", "PlainCNN"),
    "mlp": ("mlp", "MLP", "MLP"),
}


def build(
    name: str,
    *,
    num_classes: int = 10,
    input_shape: tuple[int, ...] = (32, 32, 3),
    rng: np.random.Generator | None = None,
    **arguments: Any,
) -> Module:
    """Make a network by name.

    Parameters
    ----------
    name : str
        One of `MODELS`.
    num_classes : int
    input_shape : (H, W, C)
    rng : numpy.random.Generator, optional
    **arguments
        The network's own, such as ``stem=32``.

    Raises
    ------
    ConfigError
        If the name or an argument is unknown (the nearest known one is named), or out of range.
    """
    if name not in MODELS:
        raise ConfigError(unknown("model", name, MODELS))
    file, maker, described_by = MODELS[name]
    module = importlib.import_module(f"{__name__}.{file}")
    known = list(inspect.signature(getattr(module, described_by)).parameters)
    for argument in arguments:
        if argument not in known:
            raise ConfigError(unknown(f"argument of {name}", argument, known))
    model: Module = getattr(module, maker)(
        num_classes=num_classes, input_shape=tuple(input_shape), rng=rng, **arguments
    )
    return model
