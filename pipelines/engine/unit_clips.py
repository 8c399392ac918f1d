"""Clips of a unit, for jobs that read audio: unusable ones are ignored or rejected on the way."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from codectok.audio.sound import MIXED, SoundOptions
from codectok.errors import AudioError
from codectok.phases import READING
from codectok.pipelines.engine.output.unit_output import UnitOutput
from codectok.pipelines.engine.planning.unit import Unit
from codectok.sources.channels import clips_of_channels
from codectok.sources.clip import Clip
from codectok.sources.clips import UnusedSound, count_undecodable, readable_clips
from codectok.sources.rejects import REST_STAGE, Reject
from codectok.tokens.clips import ClipReader, DamagedRest


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
    that are not used; clips that cannot be decoded are rejected there, and so is the end of a clip without text from
    damage on. A clip is held in memory as a whole.
    """
    unused = UnusedSound(output, sound)
    clock = output.clock
    for clip in clock.steps(READING, clips_of_channels(clips_of_unit(unit, output), sound)):
        reader = ClipReader(clip, sample_rate, sound)
        try:
            with clock.during(READING):
                samples = np.concatenate(list(reader.blocks()))
        except AudioError as error:
            count_undecodable(clip, error, output)
            unused.add(clip, reader.notes)
        else:
            output.read(clip.dataset, len(samples) / sample_rate)
            unused.add(clip, reader.notes)
            reject_rest(clip, reader.rest, output)
            yield clip, samples


def reject_rest(clip: Clip, rest: DamagedRest | None, output: UnitOutput) -> None:
    """Reject the end of a clip that damage cut off, if there is one; the clip itself has been counted as read."""
    if rest is not None:
        output.read(clip.dataset, rest.error.seconds, inputs=0)
        output.reject(Reject.of(rest.error, clip.dataset, clip.source, REST_STAGE, rest.start, rest.error.seconds))
