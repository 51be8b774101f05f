"""Post-training quantisation: from a trained model and some images to a plan on codes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from minidnn.errors import ConfigError, ShapeError
from minidnn.kernels.ladder import unknown
from minidnn.module import Module
from minidnn.plan.compiler import Plan, image_shape
from minidnn.plan.folding import simplify
from minidnn.plan.lowering import lower
from minidnn.plan.program import Codes, Program
from minidnn.quantization.calibration import Seen, calibrate, observe
from minidnn.quantization.equalise import equalise
from minidnn.quantization.quantizer import Quantised, on_codes, quantise
from minidnn.tensor import Array

# Images that are sent through the network at a time.
BATCH = 50


@dataclass(frozen=True)
class Prepared:
    """A network ready to be quantised: in float32, and what its values held.

    Attributes
    ----------
    program : Program
        Simplified; channels evened out if that was asked for.
    seen : dict of int to Seen
    """

    program: Program
    seen: dict[int, Seen]

    def codes(self, method: str = "mse") -> dict[int, Codes]:
        """Return codes for every value, chosen by one method of calibration."""
        return calibrate(self.program, self.seen, method)

    def quantised(self, method: str = "mse", keep: Collection[str] = ()) -> Quantised:
        """Return the program on codes, but for layers that stay float32."""
        return quantise(self.program, self.codes(method), keep=steps_of(self.program, keep))


def prepare(
    model: Module,
    shape: Sequence[int],
    batches: Callable[[], Iterable[Array]],
    *,
    even: bool = True,
) -> Prepared:
    """Simplify a network, look at its values, and even out their channels.

    Parameters
    ----------
    model : Module
    shape : sequence of int
        Of one image.
    batches : callable
        Returns the images for calibration, in batches; is called twice.
    even : bool
        Whether to even out channels (`minidnn.quantization.equalise`).
    """
    program = simplify(lower(model, shape))
    seen = observe(program, batches())
    if not even:
        return Prepared(program, seen)
    program = equalise(program, {value: (one.low, one.high) for value, one in seen.items()})
    return Prepared(program, observe(program, batches()))


def steps_of(program: Program, layers: Collection[str]) -> frozenset[int]:
    """Return the numbers of the steps that hold one of these layers.

    Raises
    ------
    ConfigError
        If there is no such layer.
    """
    names = sorted({label for step in program.steps for label in step.labels})
    for layer in layers:
        if layer not in names:
            raise ConfigError(unknown("layer", layer, names))
    chosen = set(layers)
    return frozenset(i for i, step in enumerate(program.steps) if chosen & set(step.labels))


def vanhoucke(model: Module, shape: Sequence[int], batches: Callable[[], Iterable[Array]]) -> Plan:
    """Quantise as Vanhoucke, Senior and Mao 2011 did: to compare with.

    One scale for all weights of a layer, ranges of activations from end to end, and a first layer
    in float32. Their activations were sigmoids, 0 to 1 everywhere; here each value has its range.
    """
    prepared = prepare(model, shape, batches, even=False)
    first = next((i for i, s in enumerate(prepared.program.steps) if on_codes(s)), 0)
    codes = prepared.codes("minmax")
    return quantise(prepared.program, codes, per_layer=True, keep={first}).plan()


def quantize(
    model: Module,
    images: Array | Iterable[Array],
    *,
    input_shape: Sequence[int],
    method: str = "mse",
    keep: Collection[str] = (),
) -> Plan:
    """Compile a trained model for inference on 8-bit integers.

    Weights become int8 with a scale per output channel, activations one byte with a scale and a
    zero point per array, chosen by looking at some images (docs/int8.md). Batch normalisation is
    folded first, and channels are evened out where that changes nothing else. Layers for which
    there is no 8-bit loop stay float32.

    Parameters
    ----------
    model : Module
        As for `minidnn.compile`.
    images : ndarray of float32 of shape (N, ...), or iterable of such
        For calibration, as the model takes them: a thousand of those it was trained on will do.
    input_shape : sequence of int
        Of a batch, such as (1, 32, 32, 3).
    method : {"mse", "percentile", "minmax"}
        How ranges are chosen: the least mean squared error, all but one number in ten thousand,
        or from end to end.
    keep : collection of str
        Layers, by their dotted paths, that should stay float32.

    Returns
    -------
    Plan
        Float32 images -> float32 outputs, as `minidnn.compile` returns.

    Raises
    ------
    ConfigError
        If there is no image, no such method or no such layer.
    NonFiniteError
        If an image or a layer's output holds NaN or infinity.
    ShapeError, DTypeError
        If images do not fit.
    """
    shape = image_shape(input_shape, "quantize")
    batches = list(pieces(images, shape))
    return prepare(model, shape, lambda: batches).quantised(method, keep).plan()


def pieces(images: Array | Iterable[Array], shape: tuple[int, ...]) -> Iterable[Array]:
    """Yield images in batches that take little memory."""
    for batch in [images] if isinstance(images, np.ndarray) else images:
        if batch.shape[1:] != shape:
            wanted = ", ".join(["N", *map(str, shape)])
            raise ShapeError(f"quantize: expected images of shape ({wanted}), got {batch.shape}")
        for start in range(0, len(batch), BATCH):
            yield batch[start : start + BATCH]
