"""The ONNX file that other engines get is the network that was traced."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.onnx_names import INPUT
from bench.side_engine import nchw
from minidnn.models import build
from minidnn.tensor import Tensor, no_grad

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
from bench.onnx_model import to_onnx  # noqa: E402 - imports onnx


@pytest.mark.parametrize("network", ["quicknet", "plain_cnn"])
def test_an_exported_network_computes_the_same(network: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    small: dict[str, Any] = {"stem": 5, "stages": (7, 9), "blocks": 2}
    net = build(network, num_classes=3, input_shape=(13, 12, 3), rng=rng, **small)
    for name, buffer in net.named_buffers():
        if "running" in name:
            buffer.data[...] = rng.uniform(0.5, 1.5, buffer.data.shape)
    images = rng.standard_normal((4, 13, 12, 3), np.float32)
    with no_grad():
        expected = net.eval()(Tensor(images)).data
    onnx.save(to_onnx(net, (13, 12, 3)), tmp_path / "net.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx")
    (got,) = session.run(None, {INPUT: nchw(images)})
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_an_op_without_a_counterpart_is_named() -> None:
    net = build("quicknet", activation="relu", stem=5, stages=(7,), blocks=1)
    with pytest.raises(SystemExit, match=r"features.stem.act: no op 'relu' here, only batchnorm"):
        to_onnx(net, (32, 32, 3))
