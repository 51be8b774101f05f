"""Writes the files that inference engines of `bench.peers` read: ONNX, and its int8 versions.

Quantised after training as the engines' own tools advise: batch norm folded first, weights int8
per channel, activations uint8, ranges from the recipe's pictures for it.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from safetensors.numpy import load_file

from bench import recipe
from bench.onnx_model import to_onnx
from bench.onnx_names import FLOAT32, FOLDED, INPUT, NNCF, QDQ, QOPERATOR
from bench.shapes import CLASSES, IMAGE
from bench.side import serve
from bench.side_minidnn import NETWORKS
from minidnn.torch_state import load_torch_state_dict

PART = 50  # in memory at once, with all their maps


def convert(network: str, weights: str, files: str, int8: bool) -> list[str]:
    """Write all files that installed packages allow; return their names."""
    folder = Path(files)
    net = NETWORKS[network](num_classes=CLASSES, dropout=0.0)
    load_torch_state_dict(net, load_file(weights))
    onnx.save(to_onnx(net, (IMAGE.size, IMAGE.size, IMAGE.channels)), folder / FLOAT32)
    if int8:
        parts = calibration()
        quantise(folder, parts)
        if all(importlib.util.find_spec(name) for name in ("openvino", "nncf")):
            quantise_for_openvino(folder, parts)
    return sorted(path.name for path in folder.iterdir())


def calibration() -> list[Any]:
    """Return the pictures to calibrate on in parts, (N, C, H, W)."""
    images = recipe.calibration_pictures().transpose(0, 3, 1, 2)
    return [np.ascontiguousarray(part) for part in np.split(images, len(images) // PART)]


class _Reader:
    """What the quantiser asks for pictures, part by part."""

    def __init__(self, parts: list[Any]) -> None:
        self.parts: Iterator[Any] = iter(parts)

    def get_next(self) -> dict[str, Any] | None:
        part = next(self.parts, None)
        return None if part is None else {INPUT: part}


def quantise(folder: Path, parts: list[Any]) -> None:
    """Write the int8 versions of ONNX Runtime's quantiser."""
    # It advises at every step to do what was done just before.
    logging.getLogger().setLevel(logging.ERROR)
    quant_pre_process(folder / FLOAT32, folder / FOLDED, skip_symbolic_shape=True)
    for file, form in ((QDQ, QuantFormat.QDQ), (QOPERATOR, QuantFormat.QOperator)):
        quantize_static(
            folder / FOLDED,
            folder / file,
            _Reader(parts),
            quant_format=form,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )


def quantise_for_openvino(folder: Path, parts: list[Any]) -> None:
    """Write the int8 version of OpenVINO's quantiser."""
    import nncf  # takes seconds, brings torch and is not always there
    import openvino

    quantised = nncf.quantize(
        openvino.Core().read_model(folder / FOLDED),
        nncf.Dataset([part[i : i + 1] for part in parts for i in range(PART)]),
        preset=nncf.QuantizationPreset.MIXED,  # PReLU gives negative values too
        subset_size=recipe.CALIBRATION,
    )
    openvino.save_model(quantised, folder / NNCF, compress_to_fp16=False)


if __name__ == "__main__":
    serve({"convert": convert})
