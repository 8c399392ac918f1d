"""Clips of a unit, for jobs that read audio: unusable sources are ignored or rejected on the way."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from codectok.errors import AudioError
from codectok.sources.clips import clips_of
from codectok.sources.rejects import Reject
from codectok.tokens.clips import Clip, decoded_blocks

from .plan import Unit
from .unit_output import UnitOutput


def readable_clips(unit: Unit, output: UnitOutput | None) -> Iterator[Clip]:
    """Yield the clips of all sources of `unit`, not decoded yet.

    Sources that cannot be read are rejected in `output`, and files that are not audio are ignored there; without
    `output` they are skipped.
    """
    for source in unit.sources:
        for clip in clips_of(source):
            if isinstance(clip, Clip):
                yield clip
            elif output is not None and clip is None:
                output.ignore(source.dataset)
            elif output is not None and clip is not None:
                output.read(clip.dataset)
                output.reject(clip)


def decoded_clips(unit: Unit, output: UnitOutput, sample_rate: int) -> Iterator[tuple[Clip, np.ndarray]]:
    """Yield each clip of `unit` with its samples, float32 [n], mono, at `sample_rate` Hz.

    Counts every clip as read in `output`; clips that cannot be decoded are rejected there. A clip is held in memory
    as a whole.
    """
    unknown = {source.name for source in unit.sources if source.kind == "unknown"}
    for clip in readable_clips(unit, output):
        try:
            samples = np.concatenate(list(decoded_blocks(clip, sample_rate)))
        except AudioError as error:
            reject_clip(clip, error, output, may_be_ignored=clip.source in unknown)
        else:
            output.read(clip.dataset, len(samples) / sample_rate)
            yield clip, samples


def reject_clip(clip: Clip, error: AudioError, output: UnitOutput, may_be_ignored: bool) -> None:
    """Reject a clip that cannot be decoded; a file of unknown kind that is not audio is ignored instead."""
    if may_be_ignored and error.reason in ("unreadable", "empty"):
        output.ignore(clip.dataset)
    else:
        output.read(clip.dataset)
        output.reject(Reject.of(error, clip.dataset, clip.source, "decode"))
