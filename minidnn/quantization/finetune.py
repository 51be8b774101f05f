"""Training that knows of the codes: a few epochs in which a folded network gets used to 8 bits.

Batch norm is folded before, its statistics frozen, so what is trained is what will be quantised.
Forward rounds activations and weights as the 8-bit kernels do, in float32 (`fake_quantize`);
backward goes straight through the rounding (Jacob et al. 2018, arXiv:1712.05877, section 3;
Nagel et al. 2021, arXiv:2106.08295, section 4). The weights that are updated are not rounded
ones: small steps add up until one of them crosses to the next integer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np

from minidnn.arithmetic import concat, pad
from minidnn.errors import ConfigError, NonFiniteError, ShapeError
from minidnn.kernels import fake_quantize as kernel
from minidnn.kernels.int8 import quantise_weights
from minidnn.kernels.windows import Pads
from minidnn.layers.activation import prelu, relu
from minidnn.layers.conv import conv2d, depthwise, pointwise, repeat_channels
from minidnn.layers.pool import avg_pool, global_avg_pool, max_pool
from minidnn.losses import cross_entropy
from minidnn.module import Module, Parameter
from minidnn.optim import Adam, at_least
from minidnn.plan.program import Codes, Program, Step
from minidnn.quantization.quantizer import on_codes
from minidnn.schedules import cosine
from minidnn.tensor import Array, Backward, Tensor, op

Epoch: TypeAlias = Callable[[int], Iterable[tuple[Array, Array]]]
RATE = 3e-4
# Adam's step is the same for large weights and small ones; each array's is scaled by its size.
SMALLEST = 1e-2


@op
def fake_quantize(x: Array, *, scale: float, zero: int) -> tuple[Array, Backward]:
    """The numbers that codes stand for; the loops are in `minidnn.kernels.fake_quantize`."""
    y, inside = kernel.forward(x, scale=scale, zero=zero)
    return y, lambda dy: kernel.backward(dy, inside)


@op
def straight_through(x: Array, *, rounded: Array) -> tuple[Array, Backward]:
    """`rounded` in place of x, with the gradient of x itself.

    For weights and biases: none is cut off. That their scales follow the largest weight is left
    out of the gradient.
    """
    return rounded, lambda dy: dy


# --- steps ------------------------------------------------------------------------------


class FoldedStep(Module):
    """One step of a program as a layer.

    Parameters
    ----------
    step : Step
    seen : Codes, optional
        Of its input, if it works on codes. Then the weights and the bias of a convolution or
        product are rounded. A factor per channel is a filter of one tap, whose integer is
        always 127: nothing is lost.

    Attributes
    ----------
    weight, factor, bias, slope : Parameter or None
        Those of its `arrays` that it has; weights in the shape that the convolution takes. A
        slope of zeros is a ReLU, and is not trained.

    Shapes
    ------
    (N, ...) of as many numbers as `step.shape` has -> (N, H, W, C); of an ``"op"`` its own.
    """

    def __init__(self, step: Step, seen: Codes | None = None) -> None:
        super().__init__()
        if step.kind not in RUNS or (step.kind == "convolve" and "taps" in step.arrays):
            raise ConfigError(
                f"fine-tuning: {step.labels[0]}: expected a step of a simplified program in "
                f"float32, got {step.kind!r}"
            )
        self.step, self.seen = step, seen
        arrays = {} if step.kind == "op" else step.arrays
        self.weight = _parameter(arrays.get("taps"), decay=False)
        if "matrix" in arrays:
            self.weight = Parameter(_kernel(step))
        self.factor, self.bias, self.slope = (
            _parameter(arrays.get(name), step, decay=False) for name in ("factor", "bias", "slope")
        )
        self.is_relu = self.slope is not None and not self.slope.data.any()
        if self.is_relu:
            self.slope = None

    def forward(self, *inputs: Tensor) -> Tensor:
        """Compute the step's output, before it is rounded."""
        step = self.step
        if step.kind != "op":
            inputs = tuple(_as(x, step.shape) for x in inputs)
        y = RUNS[step.kind](self, *inputs)
        if self.is_relu:
            y = relu(y)
        elif self.slope is not None:
            y = prelu(y, self.slope)
        if step.pool > 1:
            windows = {"size": (step.pool, step.pool), "stride": (step.pool, step.pool)}
            y = max_pool(y, **windows, pads=(0, 0, 0, 0), ceil_mode=False)
        return y

    def arrays(self) -> dict[str, Array]:
        """Return copies of the step's arrays with the numbers as they are now, in float32."""
        step, found = self.step, dict(self.step.arrays)
        own = {"factor": self.factor, "bias": self.bias, "slope": self.slope}
        for name, parameter in own.items():
            if parameter is not None:
                found[name] = parameter.data.reshape(found[name].shape)
        if self.weight is not None and step.kind == "depthwise":
            found["taps"] = self.weight.data
        elif self.weight is not None:
            found["matrix"] = _matrix(step, self.weight.data)
        dtype = None if step.kind == "op" else np.float32
        return {name: np.array(array, dtype, order="C") for name, array in found.items()}

    def extra_repr(self) -> str:
        """Return its kind and the layers in it."""
        return f"{self.step.kind}: {', '.join(self.step.labels)}"

    # --- kinds --------------------------------------------------------------------------

    def _weights(self) -> tuple[Tensor, Tensor | None]:
        """Return weight and bias as the step multiplies and adds them."""
        w, bias = self.weight, self.bias
        assert w is not None
        if self.seen is None:
            return w, bias
        integers, scales = quantise_weights(w.data)
        rounded = straight_through(w, rounded=integers * scales)
        if bias is None:
            return rounded, None
        unit = self.seen.scale * scales.astype(np.float64)
        whole = (np.rint(bias.data / unit) * unit).astype(np.float32)
        return rounded, straight_through(bias, rounded=whole)

    def convolve(self, x: Tensor) -> Tensor:
        """Any convolution or product."""
        step, (w, bias) = self.step, self._weights()
        if step.is_pointwise:
            return pointwise(x, w.reshape(w.shape[2], w.shape[3]), bias)
        return conv2d(
            x, w, bias, stride=step.stride, pads=_pads(step), dilation=step.dilation,
            groups=step.groups,
        )  # fmt: skip

    def depthwise(self, x: Tensor) -> Tensor:
        """A depthwise convolution."""
        return depthwise(x, *self._weights(), stride=self.step.stride, pads=_pads(self.step))

    def scale(self, x: Tensor) -> Tensor:
        """x * factor + bias, per channel or per element."""
        x = x if self.factor is None else x * self.factor
        return x if self.bias is None else x + self.bias

    def add(self, x: Tensor, other: Tensor) -> Tensor:
        """x + other."""
        return x + other

    def copy(self, x: Tensor) -> Tensor:
        """x with each channel repeated, and zeros around."""
        step = self.step
        x = repeat_channels(x, times=step.repeat) if step.repeat > 1 else x
        if step.out_shape[:2] == step.shape[:2]:
            return x
        pads = _pads(step)
        return pad(x, ((0, 0), pads[:2], pads[2:], (0, 0)))

    def largest(self, x: Tensor) -> Tensor:
        """The largest of each window."""
        step = self.step
        windows = {"size": step.kernel, "stride": step.stride, "pads": _pads(step)}
        return max_pool(x, **windows, ceil_mode=False)

    def average(self, x: Tensor) -> Tensor:
        """Each window's sum times its share."""
        step, size = self.step, math.prod(self.step.kernel)
        shares = step.arrays["shares"].astype(x.dtype)
        if step.kernel == step.shape[:2] and shares.size == 1 and _pads(step) == (0, 0, 0, 0):
            y = global_avg_pool(x).reshape(len(x), 1, 1, -1)
        else:
            windows = {"size": step.kernel, "stride": step.stride, "pads": _pads(step)}
            y = avg_pool(x, **windows, ceil_mode=False, count_include_pad=True)
        gain = shares * x.dtype.type(size)
        return y if np.allclose(gain, 1, rtol=1e-6) else y * Tensor(gain.reshape(*gain.shape, 1))

    def op(self, *inputs: Tensor) -> Tensor:
        """An op's own function."""
        step, given = self.step, iter(inputs)
        settings = dict(step.settings)
        arrays: list[Tensor | Array | None] = []
        for i, (value, shape) in enumerate(zip(step.inputs, settings.pop("shapes"), strict=True)):
            arrays.append(step.arrays.get(str(i)) if value is None else _as(next(given), shape))
        assert step.op is not None
        return step.op(*arrays, **settings)


RUNS: dict[str, Callable[..., Tensor]] = {
    name: getattr(FoldedStep, name)
    for name in ("convolve", "depthwise", "scale", "add", "copy", "largest", "average", "op")
}


def _parameter(array: Array | None, step: Step | None = None, *, decay: bool) -> Parameter | None:
    """Return a parameter: per channel, or of a step's shape if it has a number per element."""
    if array is None:
        return None
    data = np.array(array, np.float32)
    if step is not None:
        data = data.reshape(-1 if data.size == step.out_shape[2] else step.out_shape)
    return Parameter(data, decay=decay)


def _kernel(step: Step) -> Array:
    """Return a matrix, or one per group, as the kernel (KH, KW, Cin / groups, Cout) it was."""
    matrix = np.asarray(step.arrays["matrix"], np.float32)
    if step.groups > 1:
        matrix = np.asarray(matrix.transpose(1, 0, 2))
    return np.array(matrix.reshape(*step.kernel, -1, step.out_shape[2]), order="C")


def _matrix(step: Step, w: Array) -> Array:
    """Return the kernel as a matrix (K, N), or (groups, K, N)."""
    groups, channels = step.groups, step.out_shape[2]
    matrix = w.reshape(-1, groups, channels // groups).transpose(1, 0, 2)
    return matrix.reshape(step.arrays["matrix"].shape)


def _as(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    return x if x.shape[1:] == tuple(shape) else x.reshape(len(x), *shape)


def _pads(step: Step) -> Pads:
    """Return the zeros that a step's windows reach, above and below, left and right."""
    pads = []
    for axis in (0, 1):
        reach = (step.kernel[axis] - 1) * step.dilation[axis] + 1
        end = (step.out_shape[axis] - 1) * step.stride[axis] + reach
        pads += [step.start[axis], max(0, end - step.shape[axis] - step.start[axis])]
    return pads[0], pads[1], pads[2], pads[3]


# --- the network ------------------------------------------------------------------------


class Folded(Module):
    """A simplified program as a network that can be trained.

    Parameters
    ----------
    program : Program
        Of `minidnn.plan.folding.simplify`.
    codes : dict of int to Codes, optional
        As `calibrate` returns them. Values that `minidnn.quantization.quantizer.quantise` would
        hold as codes are rounded to what these stand for, and so are the weights of its steps on
        codes. Without codes the network computes what the program does.
    keep : collection of int
        Steps, by their number, that stay float32.

    Shapes
    ------
    (N, *program.input_shape) -> outputs (N, ...), a tuple if there are several.

    Raises
    ------
    ConfigError
        For a program that is not simplified, or codes of a value that it does not have.
    """

    def __init__(
        self,
        program: Program,
        codes: Mapping[int, Codes] | None = None,
        keep: Collection[int] = (),
    ) -> None:
        super().__init__()
        given = codes or {}
        for value in given:
            if not 0 <= value < len(program.sizes):
                raise ConfigError(f"codes: the program has no value {value}")
        self.source = program
        chosen = [i not in keep and on_codes(step) for i, step in enumerate(program.steps)]
        self.codes = {v: one for v, one in given.items() if v in _coded(program, chosen)}
        sources = [
            step.inputs[0] if eight else None
            for step, eight in zip(program.steps, chosen, strict=True)
        ]
        self.steps = [
            FoldedStep(step, None if value is None else given.get(value))
            for step, value in zip(program.steps, sources, strict=True)
        ]

    def forward(self, x: Tensor) -> Any:
        """Compute the outputs for images (N, *input_shape)."""
        source = self.source
        if x.shape[1:] != source.input_shape or not x.ndim:
            wanted = ", ".join(["N", *map(str, source.input_shape)])
            raise ShapeError(f"expected images of shape ({wanted}), got {x.shape}")
        values = {source.input: self._rounded(source.input, x)}
        parts: dict[int, list[tuple[int, Tensor]]] = {}
        for layer in self.steps:
            step = layer.step
            y = layer(*(values[v] for v in step.inputs if v is not None))
            if step.channels != step.out_shape[2]:  # one of the steps that write this value
                parts.setdefault(step.output, []).append((step.to, y))
                held = sorted(parts[step.output], key=lambda part: part[0])
                if sum(part.shape[3] for _, part in held) < step.channels:
                    continue
                y = concat([part for _, part in held], axis=3)
            values[step.output] = self._rounded(step.output, y)
        outputs = tuple(_as(values[v], shape) for v, shape in source.outputs)
        return outputs[0] if len(outputs) == 1 else outputs

    def _rounded(self, value: int, x: Tensor) -> Tensor:
        codes = self.codes.get(value)
        return x if codes is None else fake_quantize(x, scale=codes.scale, zero=codes.zero)

    def program(self) -> Program:
        """Return the program with the numbers as they are now; the old one keeps its own."""
        steps = [
            replace(layer.step, arrays=layer.arrays(), inputs=list(layer.step.inputs))
            for layer in self.steps
        ]
        source = self.source
        return replace(
            source, sizes=list(source.sizes), steps=steps, outputs=list(source.outputs),
            codes=dict(source.codes),
        )  # fmt: skip


def _coded(program: Program, chosen: list[bool]) -> set[int]:
    """Return the values that are rounded, if these of the steps work on codes."""
    found: set[int] = set()
    for step, eight in zip(program.steps, chosen, strict=True):
        if eight:
            found |= {value for value in step.inputs if value is not None}
            if step.pool > 1 or step.kind not in (
                "convolve",
                "average",
            ):  # these can end in float32
                found.add(step.output)
    for step, eight in zip(program.steps, chosen, strict=True):
        if eight and step.kind == "largest":  # the largest of codes is one of them
            found.discard(step.output)
    return found


def finetune(
    program: Program,
    codes: Mapping[int, Codes],
    batches_of_epoch: Epoch,
    *,
    epochs: int,
    steps_per_epoch: int | None = None,
    keep: Collection[int] = (),
    lr: float = RATE,
    progress: Callable[[int, int, float], object] = lambda epoch, step, loss: None,
) -> Program:
    """Train a folded network with its codes, and return it as a program again.

    Adam (Kingma & Ba 2015) on the cross-entropy, with a rate that falls from `lr` to 0 along half
    a cosine. Each array moves by `lr` times the root mean square of its numbers per step, at
    most: folding has made some of them large and some small. The same batches give the same
    bits.

    Parameters
    ----------
    program : Program
        A simplified one, whose one output are logits (N, K).
    codes, keep
        As in `Folded`; codes stay as they are.
    batches_of_epoch : callable
        ``batches_of_epoch(epoch)`` gives (images, labels) of epochs 0, 1, ..., such as
        `minidnn.data.Batches.epoch`.
    epochs : int
    steps_per_epoch : int, optional
        Batches in an epoch; if left out, those of epoch 0 are gone through once to count them.
    lr : float
    progress : callable
        Called with (epoch, steps done of all epochs, loss) after each step.

    Raises
    ------
    ConfigError
        For settings out of range, several outputs, or an epoch without batches.
    NonFiniteError
        If the loss becomes NaN or infinite.
    ShapeError, DTypeError, InputError
        If images or labels do not fit.
    """
    if epochs < 1:
        raise ConfigError(f"epochs: expected at least 1, got {epochs}")
    if len(program.outputs) != 1 or len(program.outputs[0][1]) != 1:
        shapes = ", ".join(str(("N", *shape)) for _, shape in program.outputs)
        raise ConfigError(f"fine-tuning: expected one output, logits (N, K), got {shapes}")
    at_least("lr", lr, 0)
    if steps_per_epoch is None:
        steps_per_epoch = sum(1 for _ in batches_of_epoch(0))
    if steps_per_epoch < 1:
        raise ConfigError("fine-tuning: expected at least one batch in an epoch, got none")
    network = Folded(program, codes, keep).train()
    optimizer = Adam(_groups(network), lr=lr)
    rate = cosine(lr, total_steps=epochs * steps_per_epoch)
    done = 0
    for epoch in range(epochs):
        for images, labels in batches_of_epoch(epoch):
            optimizer.lr = rate(done)
            loss = cross_entropy(network(Tensor(images)), labels)
            if not math.isfinite(loss.item()):
                raise NonFiniteError(
                    f"fine-tuning: the loss is {loss.item()} at step {done + 1}; try a lower lr "
                    f"than {lr:g}"
                )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            done += 1
            progress(epoch, done, loss.item())
    return network.program()


def _groups(network: Folded) -> list[dict[str, Any]]:
    """Return a group per parameter, with a rate as large as its numbers are."""
    sizes = [(p, float(np.sqrt(np.mean(np.square(p.data))))) for p in network.parameters()]
    return [{"params": [p], "lr_scale": max(size, SMALLEST)} for p, size in sizes]
