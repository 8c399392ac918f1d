"""`evaluate`: a codec on a test set, clip by clip, in this process."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from codectok.codec import Codec
from codectok.errors import AudioError, CodectokError, InputError
from codectok.evaluation.reconstruction import (
    ClipMeasures,
    EvaluationOptions,
    EvaluationReport,
    Totals,
    UnusedClip,
    measure,
    report_of,
)
from codectok.evaluation.speech_quality import missing_measures
from codectok.pipelines.engine.job import Job
from codectok.pipelines.engine.planning import ordered_sources
from codectok.sources.arguments import parse_arguments
from codectok.sources.clips import clips_of
from codectok.sources.listing import list_sources
from codectok.sources.rejects import Reject
from codectok.sources.source import Source
from codectok.tokens.clips import Clip, decoded_blocks


@dataclass
class _Unused:
    """Collects what cannot be measured."""

    clips: list[UnusedClip] = field(default_factory=list)
    ignored: int = 0

    def add(self, reject: Reject) -> None:
        self.clips.append(
            UnusedClip(
                dataset=reject.dataset,
                source=reject.source,
                start=reject.start,
                reason=reject.reason,
                message=reject.message,
            )
        )


def evaluate(
    codec: Codec,
    sources: Sequence[str],
    limit: int | None = None,
    max_seconds: float | None = None,
    on_listed: Callable[[int], None] = lambda n_sources: None,
    on_source: Callable[[], None] = lambda: None,
    on_clip: Callable[[ClipMeasures], None] = lambda clip: None,
) -> EvaluationReport:
    """Encode and decode the clips of a test set, one after the other, and measure what comes back.

    Args:
        codec: the one to evaluate.
        sources: as `tokenize` takes them.
        limit: clips that are measured; the first ones, in the order of paths.
        max_seconds: measured of a clip; of longer ones the beginning.
        on_listed: called with the number of files, tars and Parquet files; `on_source` for each that is done.
        on_clip: called with each clip that was measured; they are not kept.

    Raises:
        InputError: sources that do not exist, or impossible limits.
        CodectokError: no clip could be measured.
    """
    if max_seconds is not None and not 0 < max_seconds < math.inf:
        raise InputError(f"{max_seconds:g} s of a clip are impossible; give a number of seconds above 0.")
    if limit is not None and limit < 1:
        raise InputError(f"A limit of {limit} clips leaves none; give a number above 0.")
    listing = list_sources(*parse_arguments(sources, Job.kinds), Job.kinds)
    on_listed(len(listing.paths))
    unused, totals = _Unused(ignored=listing.ignored), Totals(codec)
    for source in ordered_sources(listing):
        for clip in _clips(source, unused):
            if totals.clips == limit:
                break
            try:
                measured, codes = _measured(codec, clip, max_seconds)
            except AudioError as error:
                if source.kind == "unknown" and error.reason in ("unreadable", "empty"):
                    unused.ignored += 1  # nobody has said that it is audio
                else:
                    start = clip.span.start if clip.span else 0.0
                    unused.add(Reject.of(error, clip.dataset, clip.source, "decode", start))
                continue
            totals.add(measured, codes)
            on_clip(measured)
        if totals.clips == limit:
            break
        on_source()
    if not totals.clips:
        raise CodectokError(_nothing(unused))
    options = EvaluationOptions(sources=tuple(sources), limit=limit, max_seconds=max_seconds)
    return report_of(codec, options, totals, missing_measures(), tuple(unused.clips), unused.ignored)


def _clips(source: Source, unused: _Unused) -> Iterator[Clip]:
    for clip in clips_of(source):
        if clip is None:
            unused.ignored += 1
        elif isinstance(clip, Reject):
            unused.add(clip)
        else:
            yield clip


def _measured(codec: Codec, clip: Clip, max_seconds: float | None) -> tuple[ClipMeasures, np.ndarray]:
    """A clip's measures and its codes; `AudioError` if it cannot be used."""
    samples = _samples(clip, codec.sample_rate, max_seconds)
    codes = codec.encode(samples, codec.sample_rate).numpy()
    reconstruction = codec.decode_aligned(codes, len(samples)).numpy()
    start = clip.span.start if clip.span else clip.sample.start if clip.sample else 0.0
    measured = ClipMeasures(
        id=clip.id,
        dataset=clip.dataset,
        source=clip.source,
        start=start,
        seconds=len(samples) / codec.sample_rate,
        frames=len(codes),
        measures=measure(codec.log_mel, samples, reconstruction, codec.sample_rate),
    )
    return measured, codes


def _samples(clip: Clip, sample_rate: int, max_seconds: float | None) -> np.ndarray:
    wanted = None if max_seconds is None else max(1, round(max_seconds * sample_rate))
    blocks, length = [np.zeros(0, np.float32)], 0
    for block in decoded_blocks(clip, sample_rate):
        blocks.append(block)
        length += len(block)
        if wanted is not None and length >= wanted:
            break
    return np.concatenate(blocks)[:wanted]


def _nothing(unused: _Unused) -> str:
    if not unused.clips:
        return "Nothing was measured: the sources hold no audio."
    first = unused.clips[0]
    return f"Nothing was measured: not one of {len(unused.clips)} clips can be used, the first: {first.message}"
