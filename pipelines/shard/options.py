"""Options of `shard`."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from codectok.audio.analysis import dnsmos, speech
from codectok.audio.analysis.quality import QualityLimits
from codectok.audio.segments import check_limits
from codectok.audio.sound import MIXED, SoundOptions
from codectok.choices import AudioFormat, Segmenter
from codectok.config import parse
from codectok.errors import InputError
from codectok.pipelines.engine.planning.cutting import check_unit_seconds
from codectok.pipelines.engine.planning.plan import Plan
from codectok.sources.encodings import check_encoding
from codectok.sources.source import check_max_bytes

SAMPLE_RATES = range(8000, 192_001)
NO_LIMITS = QualityLimits()


@dataclass(frozen=True)
class ShardOptions:
    """How segments are cut, which ones are kept, and how they are written.

    Attributes:
        min_seconds, max_seconds: length of a segment.
        sample_rate: of segments, in Hz.
        segmenter: "quiet" (cut at the quietest points), "fixed" (all of the maximum length) or "vad" (speech only;
            spans of speech are joined and cut to fit).
        format: file format of the audio in the tars.
        shard_seconds: estimated audio of one tar.
        validation: share of the files whose segments are held out for validation.
        deduplicate: leave out recordings with the same samples as another one anywhere in the corpus.
        quality: limits on segments.
        encoding: of manifests and texts without a byte-order mark; None for UTF-8.
        audio_column: column of Parquet files that holds the audio; None to find it.
        max_file_bytes: largest file or sample that is read; None for no limit on files of this machine, and
            `codectok.sources.source.MAX_HELD_BYTES` for others.
        sound: how channels and scales of files become mono samples.

    Raises:
        InputError: a value out of range, or a package that is not installed.
    """

    min_seconds: float = 2.0
    max_seconds: float = 10.0
    sample_rate: int = 24_000
    segmenter: Segmenter = "quiet"
    format: AudioFormat = "flac"
    shard_seconds: float = 3600.0
    validation: float = 0.0
    deduplicate: bool = False
    quality: QualityLimits = NO_LIMITS
    encoding: str | None = None
    audio_column: str | None = None
    max_file_bytes: int | None = None
    sound: SoundOptions = MIXED

    def __post_init__(self) -> None:
        if self.encoding is not None:
            object.__setattr__(self, "encoding", check_encoding(self.encoding))
        check_max_bytes(self.max_file_bytes)
        check_limits(self.min_seconds, self.max_seconds, self.segmenter)
        if self.sample_rate not in SAMPLE_RATES:
            raise InputError(
                f"A sample rate of {self.sample_rate} Hz is not supported; choose one from {SAMPLE_RATES[0]} to"
                f" {SAMPLE_RATES[-1]} Hz."
            )
        self.check_packages()
        check_unit_seconds(self.shard_seconds)
        if not 0 <= self.validation < 1:
            raise InputError(f"The share for validation must be a number from 0 to below 1, not {self.validation:g}.")

    def check_packages(self) -> None:
        """Raise an `InputError` if a package is not installed here that finds speech or rates its quality."""
        if self.segmenter == "vad":
            speech.check_installed()
        if self.quality.min_dnsmos is not None:
            dnsmos.check_installed()


class PlannedLimits(BaseModel):
    """Limits in seconds on the length of segments, as the plan of a `shard` job stores them."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    min_seconds: float
    max_seconds: float

    @classmethod
    def from_plan(cls, plan: Plan) -> PlannedLimits:
        """Read the limits of a stored plan; `ConfigError` if one is missing or not a number."""
        return parse(cls, plan.header.options, "The plan of the shards")
