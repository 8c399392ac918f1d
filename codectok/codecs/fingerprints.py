"""Fingerprints of codecs."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
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


def hash_encoding(architecture: bytes, tensors: Mapping[str, Tensor]) -> str:
    """Hash what determines codes: an `architecture` without a decoder, and `tensors` except those of the decoder."""
    own = {key: tensor for key, tensor in tensors.items() if not key.startswith("decoder.")}
    return hash_codec(architecture, own).codec


def hash_codec(architecture: bytes, tensors: Mapping[str, Tensor]) -> Hashes:
    """Hash a canonical description of the `architecture`, and `tensors` in float32 (integers as they are)."""
    codec, weights = hashlib.sha256(architecture), hashlib.sha256()
    # Each hash has a thread, and hashlib lets the other one run.
    with ThreadPoolExecutor(1) as other:
        for key, tensor in sorted(tensors.items()):
            values = tensor.detach().cpu()
            values = values.float() if values.is_floating_point() else values
            data = values.contiguous().numpy().reshape(-1).view("u1")
            name = f"{key} {list(tensor.shape)}".encode()
            weights.update(name)
            codec.update(name)
            first = other.submit(codec.update, data.data)
            weights.update(data.data)
            first.result()
    return Hashes(codec.hexdigest(), weights.hexdigest())
