"""What a model consists of, layer by layer: a pass over the graph that `trace` returns.

Every number is per image, of the evaluation pass, in float32. A layer's bytes moved are the
least there can be: each input, weight and output crosses memory once. Its arithmetic
intensity is 2 * MACs (a multiply and an add) over those bytes: where it is far below the CPU's
FLOP per byte of memory traffic (about 10), memory sets the pace.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from minidnn.graph import Graph, Step, trace
from minidnn.module import Module

if TYPE_CHECKING:
    from rich.table import Table

FLOAT = 4  # bytes
MB = 10**6


@dataclass(frozen=True)
class Layer:
    """One layer, or one op that a model's own forward calls.

    Attributes
    ----------
    path : str
        Dotted path in the model; '' for the model itself.
    kind : str
        The layer's class, or the op's name.
    output_shape : tuple of int
        Without the batch axis.
    parameters : int
        Trainable parameters; shared ones count where they are used first.
    macs : int
        Multiply-accumulates.
    activation_bytes : int
        Size of the output.
    moved_bytes : int
        Inputs, weights and output.
    intensity : float
        FLOP per byte moved; 0 for layers without multiply-accumulates.
    """

    path: str
    kind: str
    output_shape: tuple[int, ...]
    parameters: int
    macs: int
    activation_bytes: int
    moved_bytes: int
    intensity: float


@dataclass(frozen=True)
class Summary:
    """All layers in the order they run, and totals.

    Attributes
    ----------
    model : str
        Class name.
    input_shape : tuple of int
        Without the batch axis.
    layers : list of Layer
    parameters, parameter_bytes : int
        Trainable parameters of the whole model.
    statistics : int
        Running means and variances: stored, but not trained and not in `parameters`.
    macs, activation_bytes : int
        Sums over the layers.
    """

    model: str
    input_shape: tuple[int, ...]
    layers: list[Layer]
    parameters: int
    parameter_bytes: int
    statistics: int
    macs: int
    activation_bytes: int

    def as_dict(self) -> dict[str, Any]:
        """Return plain numbers, strings, lists and dicts, for JSON."""
        return asdict(self)

    def table(self) -> Table:
        """Return a table for `rich` to print."""
        from rich.table import Table

        table = Table()
        for name in ("layer", "kind", "output"):
            table.add_column(name, overflow="fold")
        for name in ("parameters", "MACs", "activation bytes", "FLOP/byte"):
            table.add_column(name, justify="right")
        for layer in self.layers:
            counts = (layer.parameters, layer.macs, layer.activation_bytes)
            table.add_row(
                layer.path,
                layer.kind,
                "x".join(map(str, layer.output_shape)),
                *(f"{count:,}" if count else "-" for count in counts),
                f"{layer.intensity:.2f}" if layer.macs else "-",
            )
        return table

    def totals(self) -> str:
        """Return the totals, one to a line."""
        return "\n".join(
            (
                f"{self.model}, input {'x'.join(map(str, self.input_shape))}",
                f"trainable parameters  {self.parameters:,} "
                f"({self.parameter_bytes / MB:.3f} MB of 10^6 bytes)",
                f"running statistics    {self.statistics:,} (stored, not trained)",
                f"MACs per image        {self.macs:,}",
                f"activations           {self.activation_bytes:,} bytes per image",
            )
        )


def summarize(model: Module, input_shape: Sequence[int]) -> Summary:
    """Count what a model holds and does for one image.

    Parameters
    ----------
    model : Module
    input_shape : sequence of int
        Shape of one input, without the batch axis, such as (32, 32, 3).

    Returns
    -------
    Summary

    Raises
    ------
    ShapeError
        If the model does not take such an input.
    """
    graph = trace(model, (1, *input_shape))
    counted: set[int] = set()
    layers = [_layer(graph, run, counted) for run in _runs(graph.steps)]
    trained = [p for p in model.parameters() if p.requires_grad]
    buffers = [b.data for _, b in model.named_buffers()]
    return Summary(
        model=type(model).__name__,
        input_shape=tuple(input_shape),
        layers=layers,
        parameters=sum(p.size for p in trained),
        parameter_bytes=sum(p.size for p in trained) * FLOAT,
        statistics=sum(data.size for data in buffers if data.dtype.kind == "f"),
        macs=sum(layer.macs for layer in layers),
        activation_bytes=sum(layer.activation_bytes for layer in layers),
    )


def _is_layer(module: Module) -> bool:
    return not any(True for _ in module.named_children())


def _runs(steps: list[Step]) -> list[list[Step]]:
    """Put the ops of one layer's call together; ops of a model's own forward stay single."""
    runs: list[list[Step]] = []
    for step in steps:
        if runs and _is_layer(step.module) and runs[-1][0].module is step.module:
            runs[-1].append(step)
        else:
            runs.append([step])
    return runs


def _layer(graph: Graph, run: list[Step], counted: set[int]) -> Layer:
    """Count one run; `counted` holds the parameters that earlier layers have counted."""
    output = run[-1].output
    inside = {step.output for step in run}
    read = {i for step in run for i in step.inputs if i is not None} - inside
    size = {i: math.prod(graph.values[i].shape) * FLOAT for i in (*read, output)}
    parameters = 0
    for i in sorted(read):
        parameter = graph.values[i].parameter
        if parameter is not None and parameter.requires_grad and id(parameter) not in counted:
            counted.add(id(parameter))
            parameters += parameter.size
    macs, moved = sum(step.macs for step in run), sum(size.values())
    module = run[0].module
    return Layer(
        path=run[0].path,
        kind=type(module).__name__ if _is_layer(module) else run[0].op.name,
        output_shape=graph.values[output].shape[1:],
        parameters=parameters,
        macs=macs,
        activation_bytes=size[output],
        moved_bytes=moved,
        intensity=2 * macs / moved,
    )
