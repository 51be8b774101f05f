"""Networks declared from layers, one file per network; `build` makes one by name."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
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


# Follow from the data, and so are no arguments of the network's own.
FROM_DATA = ("num_classes", "input_shape", "rng")


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
        If the name or an argument is unknown (the nearest known one is named), of another type
        than its default, or out of range.
    """
    if name not in MODELS:
        raise ConfigError(unknown("model", name, MODELS))
    file, maker, described_by = MODELS[name]
    module = importlib.import_module(f"{__name__}.{file}")
    parameters = inspect.signature(getattr(module, described_by)).parameters
    defaults = {p.name: p.default for p in parameters.values() if p.name not in FROM_DATA}
    _check(name, arguments, defaults)
    model: Module = getattr(module, maker)(
        num_classes=num_classes, input_shape=tuple(input_shape), rng=rng, **arguments
    )
    return model


def _check(name: str, arguments: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    for argument, value in arguments.items():
        if argument not in defaults:
            raise ConfigError(unknown(f"argument of {name}", argument, defaults))
        wanted, fits = _KINDS[type(defaults[argument])]
        if not fits(value):
            raise ConfigError(f"{name}: {argument}: expected {wanted}, got {value!r}")


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


# Type of an argument's default -> what to call it, and whether a value will do.
_KINDS: dict[type, tuple[str, Callable[[Any], bool]]] = {
    bool: ("true or false", lambda value: isinstance(value, bool)),
    int: ("a whole number", _whole),
    float: ("a number", lambda value: isinstance(value, float) or _whole(value)),
    str: ("text", lambda value: isinstance(value, str)),
    tuple: (
        "a list of whole numbers",
        lambda value: isinstance(value, list | tuple) and all(map(_whole, value)),
    ),
}
