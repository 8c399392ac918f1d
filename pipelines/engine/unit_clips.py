"""Clips of a unit, for jobs that read audio: unusable ones are ignored or rejected on the way."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from codectok.audio.notes import DecodingNotes
from codectok.audio.sound import MIXED, SoundOptions
from codectok.errors import AudioError
from codectok.pipelines.engine.output.unit_output import UnitOutput
from codectok.pipelines.engine.planning.plan import Unit
from codectok.sources.channels import clips_of_channels
from codectok.sources.clip import Clip
from codectok.sources.clips import UnusedSound, count_undecodable, readable_clips
from codectok.tokens.clips import decoded_blocks


def clips_of_unit(unit: Unit, output: UnitOutput | None) -> Iterator[Clip]:
    """Yield the clips of all sources of `unit`, not decoded yet.

    Sources that cannot be read are rejected in `output`, and files that are not audio are ignored there; without
    `output` they are skipped.
    """
    for source in unit.sources:
        yield from readable_clips(source, output)


def decoded_clips(
    unit: Unit, output: UnitOutput, sample_rate: int, sound: SoundOptions = MIXED
) -> Iterator[tuple[Clip, np.ndarray]]:
    """Yield each clip of `unit` with its samples, float32 [n], mono, at `sample_rate` Hz.

    `sound` says how channels are mixed or chosen. Counts every clip as read in `output`, with the parts of its file
    that are not used; clips that cannot be decoded are rejected there. A clip is held in memory as a whole.
    """
    unused = UnusedSound(output, sound)
    for clip in clips_of_channels(clips_of_unit(unit, output), sound):
        notes = DecodingNotes()
        try:
            samples = np.concatenate(list(decoded_blocks(clip, sample_rate, sound, notes)))
        except AudioError as error:
            count_undecodable(clip, error, output, clip.start)
            unused.add(clip, notes)
        else:
            output.read(clip.dataset, len(samples) / sample_rate)
            unused.add(clip, notes)
            yield clip, samples
