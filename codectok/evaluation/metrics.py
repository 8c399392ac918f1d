"""Measures of a reconstruction."""

from __future__ import annotations

import torch
from torch import Tensor

from ..audio.mel import LogMel


@torch.inference_mode()
def log_mel_error(log_mel: LogMel, original: Tensor, reconstruction: Tensor) -> float:
    """Mean absolute difference of the log-mels (natural logarithm) of two aligned clips [n] on the CPU.

    The longer clip is cut; clips shorter than the mel's reflection are extended with zeros.
    """
    length = min(len(original), len(reconstruction))
    pair = torch.stack([original[:length], reconstruction[:length]])
    missing = max(0, log_mel.config.padding + 1 - length)
    mels = log_mel(torch.nn.functional.pad(pair, (0, missing)).to(log_mel.window.device))
    return float((mels[0] - mels[1]).abs().mean())
