"""Layers that run as one op: all but the last pass on a promise, the last keeps it.

`minidnn.fuse` puts such a chain together; `Module.__call__` asks it instead of the layer's own
``forward``. Layers stay what they are, with their parameters, buffers and names. The chain is
used in training only, on the tape, where it saves memory and time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from minidnn.errors import GraphError
from minidnn.module import Module
from minidnn.tensor import Array, Tensor, on_tape


class Promise(Tensor):
    """What stands between two layers of a chain: a shape, but no values.

    Only the chain's next layer can use it. A model that takes another way from call to call
    than the one traced meets an error here, not a wrong result.
    """

    __slots__ = ("_shape", "chain", "source")

    def __init__(self, source: Tensor, shape: tuple[int, ...], chain: Chain) -> None:
        self.source, self._shape, self.chain = source, shape, chain
        self.requires_grad, self.grad, self.node = True, None, None

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the values, were they there."""
        return self._shape

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self._shape)

    @property
    def data(self) -> Array:  # type: ignore[override]  # a property where Tensor has a slot
        """Raise: nobody has computed the values."""
        raise GraphError(
            "fused layers: a value inside of a fused chain was used, which the trace did not "
            "show; a model that takes another way from call to call cannot be fused, see "
            "minidnn.unfuse (or --no-fuse)"
        )


class Chain:
    """A run of layers, each the only reader of the one before.

    Parameters
    ----------
    modules : sequence of Module
    run : callable
        ``run(x)`` does the work of all layers, x being the first one's input.
    shape_after : callable
        ``shape_after(module, shape)`` returns the shape of a layer's output.
    """

    def __init__(
        self,
        modules: Sequence[Module],
        run: Callable[[Tensor], Tensor],
        shape_after: Callable[[Module, tuple[int, ...]], tuple[int, ...]],
    ) -> None:
        self.modules, self.run, self.shape_after = tuple(modules), run, shape_after
        self.parameters = [p for module in modules for p in module.parameters()]

    def __call__(self, module: Module, *inputs: Any) -> Any:
        """Stand in for ``module.forward``."""
        x = inputs[0]
        place = next(i for i, m in enumerate(self.modules) if m is module)
        if place == 0:
            if not self._wanted(x):
                return module.forward(x)
            source = x
        elif isinstance(x, Promise) and x.chain is self:
            source = x.source
        else:
            return module.forward(x)
        if place == len(self.modules) - 1:
            return self.run(source)
        return Promise(source, self.shape_after(module, x.shape), self)

    def _wanted(self, x: Tensor) -> bool:
        return all(m.training for m in self.modules) and on_tape(x, *self.parameters)
