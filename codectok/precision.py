"""Steps that stay in float32 whatever the rest computes in."""

from __future__ import annotations

import torch
from torch import Tensor


def no_autocast(tensor: Tensor) -> torch.autocast:
    """A context in which nothing on the device of `tensor` is cast to a lower precision."""
    return torch.autocast(tensor.device.type, enabled=False)
