"""Fingerprints of codecs."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Hashes:
    """SHA-256 of a codec, in hexadecimal digits.

    Attributes:
        codec: of the architecture and all tensors.
        weights: of all tensors.
    """

    codec: str
    weights: str


def hash_codec(architecture: bytes, tensors: Mapping[str, Tensor]) -> Hashes:
    """Hash a canonical description of the `architecture`, and `tensors` in float32 (integers as they are)."""
    codec, weights = hashlib.sha256(architecture), hashlib.sha256()
    for key, tensor in sorted(tensors.items()):
        values = tensor.detach().cpu()
        data = (values.float() if values.is_floating_point() else values).contiguous().numpy().reshape(-1).view("u1")
        for digest in (codec, weights):
            digest.update(f"{key} {list(tensor.shape)}".encode())
            digest.update(data.data)
    return Hashes(codec.hexdigest(), weights.hexdigest())
