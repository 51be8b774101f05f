"""Find the first layer whose output went bad, once a loss is no longer a finite number."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from minidnn.errors import NonFiniteError
from minidnn.module import Module, Parameter, calling
from minidnn.tensor import Array, Node, Tensor, no_grad, recording


def first_bad_layer(model: Module, x: Array) -> str | None:
    """Run the model once more on the same batch and describe the first bad output.

    Parameters
    ----------
    model : Module
        In the mode in which it went wrong.
    x : ndarray
        The batch.

    Returns
    -------
    str or None
        Path and type of the layer and what is bad about it; None where every output is finite.
    """
    bad = ~np.isfinite(x).reshape(len(x), -1).all(axis=1)
    if bad.any():
        return f"the input: image {int(bad.argmax())} of the batch holds NaN or infinite pixels"
    paths = {id(module): path for path, module in model.named_modules()}
    names = {id(p): name for name, p in model.named_parameters()}
    found: list[str] = []

    def look(node: Node, output: Tensor) -> None:
        if found or np.isfinite(output.data).all():
            return
        module = calling()[-1]
        text = f"{paths.get(id(module), '') or 'the model'} ({type(module).__name__})"
        weights = [
            names[id(p)]
            for p in node.parents
            if isinstance(p, Parameter) and id(p) in names and not np.isfinite(p.data).all()
        ]
        found.append(text + (f", whose {weights[0]} is no longer finite" if weights else ""))

    with no_grad(), recording(look), np.errstate(all="ignore"):
        model(Tensor(x))
    return found[0] if found else None


def check_finite(arrays: Mapping[str, Array], when: str) -> None:
    """Raise unless every float array is finite.

    Raises
    ------
    NonFiniteError
        Naming the first array that is not.
    """
    for name, array in arrays.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise NonFiniteError(f"{name} holds NaN or infinite values {when}")
