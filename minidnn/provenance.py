"""What a result depends on besides settings: versions, CPU, kernel rungs, the data itself."""

from __future__ import annotations

import platform
import zlib
from importlib.metadata import version

from minidnn import __version__
from minidnn.data.dataset import Dataset
from minidnn.kernels.jit import target
from minidnn.kernels.ladder import REGISTRY


def machine() -> dict[str, str]:
    """Return everything that may change the last bits of a result on one configuration."""
    triple, cpu, features = target()
    return {
        "minidnn": __version__,
        "python": platform.python_version(),
        "numpy": version("numpy"),
        "numba": version("numba"),
        "cpu": f"{triple} {cpu} {zlib.crc32(features.encode()):08x}",
    } | {f"rung of {name}": ladder.fastest for name, ladder in sorted(REGISTRY.items())}


def fingerprint(train: Dataset, val: Dataset) -> dict[str, str]:
    """Return a checksum of the pictures and labels of both sets, to notice other data."""

    def crc(dataset: Dataset) -> str:
        value = zlib.crc32(dataset.images.reshape(-1).data)
        return f"{len(dataset)}:{zlib.crc32(dataset.labels.tobytes(), value):08x}"

    return {"training": crc(train), "validation": crc(val)}
