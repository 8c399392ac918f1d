"""Detects operations that would wait for a GPU, on machines without one."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class NoWaiting(TorchDispatchMode):
    """Fails on operations that need values from the GPU: reading scalars, and shapes that depend on data."""

    WAITING = ("_local_scalar_dense", "nonzero", "bincount", "_unique2", "masked_select", "equal", "_to_copy")

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.overloadpacket.__name__
        assert name not in self.WAITING or (name == "_to_copy" and _changes_dtype(args[0], kwargs or {})), name
        masks = args[1] if name in ("index", "index_put_") else []
        assert all(mask is None or mask.dtype == torch.int64 for mask in masks), f"{name} with a mask"
        return function(*args, **(kwargs or {}))


def _changes_dtype(tensor: torch.Tensor, wanted: dict[str, Any]) -> bool:
    """True if the copy changes the dtype; such a copy may also name the device that it stays on."""
    return wanted.get("dtype", tensor.dtype) != tensor.dtype
