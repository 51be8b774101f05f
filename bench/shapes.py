"""QuickNet's layer shapes, which every bench here is about; commands measure on the same ones."""

from minidnn.measure.shapes import (
    ACTIVATION,
    CLASSES,
    DEPTHWISE,
    GLOBAL_AVG_POOL,
    IMAGE,
    MAX_POOL,
    POINTWISE,
    STEM_CHANNELS,
    STEM_KERNEL,
    Map,
    Pointwise,
)

__all__ = [
    "ACTIVATION",
    "CLASSES",
    "DEPTHWISE",
    "GLOBAL_AVG_POOL",
    "IMAGE",
    "MAX_POOL",
    "POINTWISE",
    "STEM_CHANNELS",
    "STEM_KERNEL",
    "Map",
    "Pointwise",
]
