"""Description of a codec, as token tables record it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

from pydantic import Field

from .config import MAX_CODEBOOK_SIZE, MAX_MODULES, MAX_SAMPLE_RATE, StrictModel

if TYPE_CHECKING:
    import numpy as np

Count = TypeVar("Count", int, "np.ndarray")

# Length of a fingerprint in labels and messages.
SHOWN_CHARACTERS = 12
MAX_PACK_FRAMES = 1 << 32
UNKNOWN = "unknown"  # arithmetic and device of codes that other programs computed

FrameRounding = Literal["down", "up", "next"]
"""Number of frames of n samples: floor(n / frame_size) but at least 1, ceil(n / frame_size), or the floor plus 1."""


def codec_label(name: str, fingerprint: str) -> str:
    """Return a readable label: the name and the start of the fingerprint."""
    return f"{name} {fingerprint[:SHOWN_CHARACTERS]}"


class CodecDescription(StrictModel):
    """A codec and all that determines the bits of its codes.

    Attributes:
        codec_name: name in the configuration.
        codec_type: "codectok", or the maker's family, such as "transformers:mimi".
        codec_fingerprint: SHA-256 of the architecture and all tensors.
        revision: commit on the Hugging Face Hub; None for a local folder.
        weights_sha256: SHA-256 of the weights alone; None if an earlier version did not record it.
        codebook_size: number of codes in each codebook.
        n_codebooks: codes per frame.
        n_residuals: number of successive codebooks that form a group of residual quantizers; None if an earlier version
            did not record it.
        frame_rate: code frames per second.
        frame_rounding: how the number of frames follows from the number of samples; None if it does not.
        sample_rate: sample rate in Hz.
        dtype: precision of the encoder.
        tf32: True if matrix products or convolutions were computed in TF32.
        device: device class, "cpu" or the GPU's model.
        kernels: kernels that computed the codes, see `codectok.choices.Kernels`; "mixed" for a table of both.
        pack_frames: mel frames that are encoded at once, for codecs that pack clips; codes depend on it on a GPU only.
        batch_seconds: audio of clips of one length that are encoded at once, for codecs that encode whole clips.
        torch, transformers: versions that computed the codes; None if an earlier version did not record them, or if
            transformers is not involved.
    """

    codec_name: str
    codec_type: str = "codectok"
    codec_fingerprint: str
    revision: str | None = None
    weights_sha256: str | None = None
    codebook_size: Annotated[int, Field(ge=2, le=MAX_CODEBOOK_SIZE)]
    n_codebooks: Annotated[int, Field(ge=1, le=MAX_MODULES)]
    n_residuals: Annotated[int, Field(ge=1, le=MAX_MODULES)] | None = None
    frame_rate: Annotated[float, Field(gt=0, le=MAX_SAMPLE_RATE)]
    frame_rounding: FrameRounding | None = "down"
    sample_rate: Annotated[int, Field(gt=0, le=MAX_SAMPLE_RATE)]
    dtype: str
    tf32: bool = False
    device: str
    kernels: str = "torch"
    pack_frames: Annotated[int, Field(gt=0, le=MAX_PACK_FRAMES)] | None = None
    batch_seconds: Annotated[float, Field(ge=0)] | None = None
    torch: str | None = None
    transformers: str | None = None

    @property
    def frame_size(self) -> int:
        """Samples per code frame."""
        return round(self.sample_rate / self.frame_rate)

    @property
    def label(self) -> str:
        """Readable label of the codec."""
        return codec_label(self.codec_name, self.codec_fingerprint)

    @property
    def made_with(self) -> str:
        """Readable arithmetic, device and versions that computed the codes."""
        if self.dtype == UNKNOWN:
            return "another program, whose codes were imported"
        versions = {"torch": self.torch, "transformers": self.transformers}
        known = "".join(f", {name} {version}" for name, version in versions.items() if version is not None)
        arithmetic = self.dtype + (" with TF32" if self.tf32 else "")
        kernels = "" if self.kernels == "torch" else f", kernels: {self.kernels}"
        return f"{arithmetic} on {self.device}{kernels}{known}"

    def n_frames(self, n_samples: Count) -> Count | None:
        """Number of code frames of a clip of `n_samples`, or of many clips; None if it does not follow from them."""
        whole = n_samples // self.frame_size
        match self.frame_rounding:
            case "down":
                at_least_one: Count = whole + (whole == 0)
                return at_least_one
            case "up":
                return -(-n_samples // self.frame_size)
            case "next":
                return whole + 1
            case None:
                return None
