"""Evaluates a codec on a test set, clip by clip, in this process."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from codectok.audio.analysis.mel import LogMel
from codectok.audio.sound import MIXED, SoundOptions
from codectok.codecs.base import AudioCodec
from codectok.errors import AudioError, CodectokError, InputError
from codectok.phases import ENCODING, READING, PhaseClock
from codectok.sources.channels import clips_of_channels
from codectok.sources.clips import UnusedSound, count_undecodable, readable_clips
from codectok.sources.kinds import AUDIO_KINDS, suffix_of
from codectok.sources.listing.arguments import parse_arguments
from codectok.sources.listing.ordering import ordered_sources
from codectok.sources.listing.sources import list_sources
from codectok.sources.parquet.check import check_audio_columns
from codectok.sources.rejects import Reject
from codectok.sources.source import check_max_bytes
from codectok.sources.unused import Unused, UnusedCounts, add_unused
from codectok.tokens.clips import ClipReader

from .metrics.signal import log_mel_of
from .metrics.speech_quality import missing_measures
from .reconstruction import (
    ClipMeasures,
    EvaluationOptions,
    EvaluationReport,
    Totals,
    UnusedClip,
    measure,
    report_of,
)


@dataclass
class _Unused:
    """Collects clips that cannot be measured, and counts files without audio."""

    clips: list[UnusedClip] = field(default_factory=list)
    ignored: int = 0
    parts: UnusedCounts = field(default_factory=dict)

    def read(self, dataset: str, seconds: float | None = None) -> None:
        """Not counted here."""

    def reject(self, reject: Reject) -> None:
        self.clips.append(
            UnusedClip(
                dataset=reject.dataset,
                source=reject.source,
                start=reject.start,
                reason=reject.reason,
                message=reject.message,
            )
        )

    def ignore(self, dataset: str, name: str) -> None:
        self.leave_unused(dataset, Unused("ignored_files", suffix_of(name), example=name))

    def leave_unused(self, dataset: str, unused: Unused) -> None:
        self.ignored += unused.count if unused.kind == "ignored_files" else 0
        add_unused(self.parts, unused)


def evaluate(
    codec: AudioCodec,
    sources: Sequence[str],
    limit: int | None = None,
    max_seconds: float | None = None,
    on_listed: Callable[[int], None] = lambda n_sources: None,
    on_source: Callable[[], None] = lambda: None,
    on_clip: Callable[[ClipMeasures], None] = lambda clip: None,
    audio_column: str | None = None,
    sound: SoundOptions = MIXED,
    strict: bool = False,
    encoding: str | None = None,
    max_file_bytes: int | None = None,
    clock: PhaseClock | None = None,
) -> EvaluationReport:
    """Encode and decode the clips of a test set, and measure the reconstruction.

    Args:
        codec: to evaluate.
        sources: folders, patterns, files, manifests, or URLs of them.
        limit: number of clips to measure, in the order of paths.
        max_seconds: of a clip that are measured, from its beginning.
        on_listed: called with the number of files, tars and Parquet files.
        on_source: called after each of them.
        on_clip: called with the measures of each clip; the report has only means.
        audio_column: column of Parquet files that holds the audio; None to find it.
        sound: how channels are mixed or chosen.
        strict: refuse manifests with lines that cannot be used.
        encoding: of manifests and texts without a byte-order mark; None for UTF-8.
        max_file_bytes: largest file or sample that is read, see `codectok.sources.source.Source`.
        clock: receives the times of reading, encoding, decoding and measuring; None to measure none.

    Raises:
        InputError: a source does not exist, or a limit is impossible.
        CodectokError: no clip can be measured.
    """
    clock = clock or PhaseClock()
    _check_limits(limit, max_seconds)
    check_max_bytes(max_file_bytes)
    listing = list_sources(*parse_arguments(sources, AUDIO_KINDS), AUDIO_KINDS, strict=strict, encoding=encoding)
    check_audio_columns(listing, audio_column)
    on_listed(len(listing.paths))
    unused, totals = _Unused(ignored=listing.ignored), Totals(codec)
    parts, log_mel = UnusedSound(unused, sound), log_mel_of(codec)
    for source in ordered_sources(listing):
        source = replace(source, audio_column=audio_column, encoding=encoding, max_file_bytes=max_file_bytes)
        clips = readable_clips(source, unused)
        for clip in clock.steps(READING, clips_of_channels(clips, sound)):
            if totals.clips == limit:
                break
            reader = ClipReader(clip, codec.decoded_sample_rate, sound)
            try:
                measured, codes = _measured(codec, log_mel, reader, max_seconds, sound, clock)
            except AudioError as error:
                count_undecodable(clip, error, unused)
            else:
                if reader.rest is not None:
                    unused.reject(Reject.of(reader.rest.error, clip.dataset, clip.source, "decode", reader.rest.start))
                totals.add(measured, codes)
                on_clip(measured)
            parts.add(clip, reader.notes)
        if totals.clips == limit:
            break
        on_source()
    if not totals.clips:
        raise CodectokError(_no_clips_message(unused))
    options = EvaluationOptions(
        sources=tuple(sources),
        limit=limit,
        max_seconds=max_seconds,
        max_file_bytes=max_file_bytes,
        **sound.values(),
    )
    return report_of(codec, options, totals, missing_measures(), tuple(unused.clips), unused.ignored, unused.parts)


def _check_limits(limit: int | None, max_seconds: float | None) -> None:
    if max_seconds is not None and not 0 < max_seconds < math.inf:
        raise InputError(f"max_seconds must be a number above 0, not {max_seconds:g}.")
    if limit is not None and limit < 1:
        raise InputError(f"limit must be a number of clips above 0, not {limit}.")


def _measured(
    codec: AudioCodec,
    log_mel: LogMel,
    reader: ClipReader,
    max_seconds: float | None,
    sound: SoundOptions,
    clock: PhaseClock,
) -> tuple[ClipMeasures, np.ndarray]:
    """The measures and the codes of a clip; raises `AudioError` if it cannot be decoded."""
    clip, rate = reader.clip, codec.decoded_sample_rate
    with clock.during(READING):
        samples = _samples(reader, rate, max_seconds, sound)
    with clock.during(ENCODING):
        codes = codec.encode(samples, rate).numpy()
    with clock.during("decoding"):
        reconstruction = codec.decode_aligned(codes)[: len(samples)].numpy()
    with clock.during("measuring"):
        measures = measure(log_mel, samples, reconstruction, rate)
    measured = ClipMeasures(
        id=clip.id,
        dataset=clip.dataset,
        source=clip.source,
        start=clip.start,
        seconds=len(samples) / rate,
        frames=len(codes),
        measures=measures,
    )
    return measured, codes


def _samples(reader: ClipReader, sample_rate: int, max_seconds: float | None, sound: SoundOptions) -> np.ndarray:
    wanted = None if max_seconds is None else max(1, round(max_seconds * sample_rate))
    blocks, length = [np.zeros(0, np.float32)], 0
    for block in reader.blocks():
        blocks.append(block)
        length += len(block)
        if wanted is not None and length >= wanted:
            break
    samples = np.concatenate(blocks)[:wanted]
    start = reader.clip.span.start
    sound.refuse_cancelled(reader.notes, start, start + len(samples) / sample_rate, reader.clip.name)
    return samples


def _no_clips_message(unused: _Unused) -> str:
    if not unused.clips:
        return "Nothing was measured: the sources hold no audio."
    first = unused.clips[0]
    return f"Nothing was measured: none of the {len(unused.clips)} clips can be used, the first: {first.message}"
