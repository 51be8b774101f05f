"""PyTorch's two layouts of images: NCHW, and channels_last, which is NHWC in memory."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

LAYOUTS = ("nchw", "channels_last")


def images_to_torch(array: Any, layout: str) -> torch.Tensor:
    """Turn an NHWC array into an NCHW tensor: a copy, or a view that torch calls channels_last.

    Arrays of other dimensions stay as they are.
    """
    x = torch.from_numpy(array)
    if x.ndim != 4:
        return x
    x = x.permute(0, 3, 1, 2)
    return x.contiguous() if layout == "nchw" else x


def images_from_torch(tensor: torch.Tensor) -> Any:
    """Turn an NCHW tensor of any layout into an NHWC array."""
    x = tensor.detach()
    return (x.permute(0, 2, 3, 1) if x.ndim == 4 else x).contiguous().numpy()


def weights_channels_last(net: nn.Module) -> nn.Module:
    """Do what ``net.to(memory_format=torch.channels_last)`` does; its types lack that argument."""
    for p in net.parameters():
        if p.ndim == 4:
            p.data = p.data.contiguous(memory_format=torch.channels_last)
    return net
