"""Description of a codec, as token tables record it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from .config import MAX_CODEBOOK_SIZE, MAX_MODULES, MAX_SAMPLE_RATE, StrictModel

# Length of a fingerprint in labels and messages.
SHOWN_CHARACTERS = 12
MAX_PACK_FRAMES = 1 << 32


def codec_label(name: str, fingerprint: str) -> str:
    """Return a readable label: the name and the start of the fingerprint."""
    return f"{name} {fingerprint[:SHOWN_CHARACTERS]}"


class CodecDescription(StrictModel):
    """A codec and all that determines the bits of its codes.

    Attributes:
        codec_name: name in the configuration.
        codec_fingerprint: SHA-256 of the architecture and all tensors.
        codebook_size: number of codes in each codebook.
        n_codebooks: codes per frame.
        n_residuals: number of successive codebooks that form a group of residual quantizers; None if an earlier version
            did not record it.
        frame_rate: code frames per second.
        sample_rate: sample rate in Hz.
        dtype: precision of the encoder.
        device: device class, "cpu" or the GPU's model.
        pack_frames: mel frames that are encoded at once; codes depend on it on a GPU only.
    """

    codec_name: str
    codec_fingerprint: str
    codebook_size: Annotated[int, Field(ge=2, le=MAX_CODEBOOK_SIZE)]
    n_codebooks: Annotated[int, Field(ge=1, le=MAX_MODULES)]
    n_residuals: Annotated[int, Field(ge=1, le=MAX_MODULES)] | None = None
    frame_rate: Annotated[float, Field(gt=0, le=MAX_SAMPLE_RATE)]
    sample_rate: Annotated[int, Field(gt=0, le=MAX_SAMPLE_RATE)]
    dtype: str
    device: str
    pack_frames: Annotated[int, Field(gt=0, le=MAX_PACK_FRAMES)]

    @property
    def label(self) -> str:
        """Readable label of the codec."""
        return codec_label(self.codec_name, self.codec_fingerprint)
