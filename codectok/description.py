"""What decides the codes that a codec gives."""

from __future__ import annotations

from .config import StrictModel

# Of a fingerprint, where people read it.
SHOWN_CHARACTERS = 12


def codec_label(name: str, fingerprint: str) -> str:
    """A codec for the eyes: its name, and of its fingerprint what tells it from others of that name."""
    return f"{name} {fingerprint[:SHOWN_CHARACTERS]}"


class CodecDescription(StrictModel):
    """A codec and the way it computes, as a table of its codes records it.

    `device` is "cpu" or the GPU's model; `pack_frames` the frames of the mel that are encoded at once, on which codes
    depend on a GPU only. Of the `n_codebooks` every `n_residuals` neighbours are a group and refine each other; None
    where an earlier version has not recorded it.
    """

    codec_name: str
    codec_fingerprint: str
    codebook_size: int
    n_codebooks: int
    n_residuals: int | None = None
    frame_rate: float
    sample_rate: int
    dtype: str
    device: str
    pack_frames: int

    @property
    def label(self) -> str:
        """The codec for the eyes."""
        return codec_label(self.codec_name, self.codec_fingerprint)
