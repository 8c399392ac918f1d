"""Options of `tokenize`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict

from codectok.audio.sound import MIXED, SoundOptions
from codectok.choices import CancelledChoice, KernelChoice, Precision, ScaleChoice
from codectok.config import parse
from codectok.errors import InputError
from codectok.pipelines.engine.planning.cutting import check_unit_seconds
from codectok.pipelines.engine.planning.plan import Plan
from codectok.sources.encodings import check_encoding
from codectok.sources.source import check_max_bytes


@dataclass(frozen=True)
class TokenizeOptions:
    """Which codec encodes, how it computes, and how long rows are.

    Attributes:
        codec: name of a codec, see `codectok.load_codec`.
        device: "auto", "cpu" or "cuda".
        dtype: arithmetic of the codec.
        pack_frames: frames that a codec of ours encodes at once.
        batch_seconds: audio of clips of one length that other codecs encode at once; None for clip by clip.
        kernels: kernels of a codec of ours on a GPU.
        encoders_per_gpu: copies of the codec on each GPU.
        max_seconds: the codes of longer recordings are sliced into several rows.
        encoder_threads: threads of one worker on a CPU; codes can depend on it.
        part_seconds: estimated audio of a part; None for an hour on a CPU and six on a GPU.
        encoding: of manifests and texts without a byte-order mark; None for UTF-8.
        audio_column: column of Parquet files that holds the audio; None to find it.
        max_file_bytes: largest file or sample that is read; None for no limit on files of this machine, and
            `codectok.sources.source.MAX_HELD_BYTES` for others.
        sound: how channels and scales of files become mono samples.

    Raises:
        InputError: a value out of range.
    """

    codec: str
    device: str = "auto"
    dtype: Precision = "float32"
    pack_frames: int | None = None
    batch_seconds: float | None = None
    kernels: KernelChoice = "auto"
    encoders_per_gpu: int = 1
    max_seconds: float | None = None
    encoder_threads: int = 1
    part_seconds: float | None = None
    encoding: str | None = None
    audio_column: str | None = None
    max_file_bytes: int | None = None
    sound: SoundOptions = MIXED

    def __post_init__(self) -> None:
        if self.encoding is not None:
            object.__setattr__(self, "encoding", check_encoding(self.encoding))
        check_max_bytes(self.max_file_bytes)
        if self.part_seconds is not None:
            check_unit_seconds(self.part_seconds)
        if self.encoder_threads < 1:
            raise InputError(f"An encoder needs at least 1 thread, not {self.encoder_threads}.")
        if self.encoders_per_gpu < 1:
            raise InputError(f"A GPU needs at least 1 encoder, not {self.encoders_per_gpu}.")
        if self.max_seconds is not None and not 0 < self.max_seconds < math.inf:
            raise InputError(f"The longest row must be a number of seconds above 0, not {self.max_seconds:g}.")


class PlannedOptions(BaseModel):
    """Options that the plan of a `tokenize` job stores: all that affect its codes.

    Attributes:
        codec: fingerprint of the codec.
        dtype: arithmetic of the codec.
        device: "cpu", or the model of the GPU.
        pack_frames: frames encoded at once; None for codecs that encode whole clips.
        batch_seconds: audio of clips of one length encoded at once; None for codecs that pack clips.
        kernels: kernels that compute; plans of earlier versions lack them.
        encoder_threads: threads of one worker; None on a GPU.
        max_seconds: length of the longest row; None if recordings are not sliced.
        channel, cancelled, scale, max_file_seconds: as in `SoundOptions`; plans of earlier versions lack them.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    codec: str
    dtype: str
    device: str
    pack_frames: int | None
    batch_seconds: float | None = None
    kernels: str = "torch"
    encoder_threads: int | None
    max_seconds: float | None
    channel: int | Literal["mix", "each"] = "mix"
    cancelled: CancelledChoice = "first"
    scale: ScaleChoice = "refuse"
    max_file_seconds: float | None = None

    @property
    def sound(self) -> SoundOptions:
        """Options by which the files were read."""
        return SoundOptions(self.channel, self.cancelled, self.scale, self.max_file_seconds)

    @classmethod
    def from_plan(cls, plan: Plan) -> PlannedOptions:
        """Read the options of a stored plan; `ConfigError` if one is missing or has another type."""
        return parse(cls, plan.header.options, "The plan of the table")
