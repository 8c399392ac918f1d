"""Clips of a unit, at all sample rates that an evaluation needs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from codectok.audio.sound import SoundOptions
from codectok.errors import AudioError
from codectok.phases import READING
from codectok.pipelines.engine.output.unit_output import UnitOutput
from codectok.pipelines.engine.planning.unit import Unit
from codectok.pipelines.engine.unit_clips import clips_of_unit, reject_rest
from codectok.sources.channels import clips_of_channels
from codectok.sources.clip import Clip
from codectok.sources.clips import UnusedSound, count_undecodable
from codectok.tokens.clips import ClipReader

from .options import EvaluateOptions


@dataclass(frozen=True)
class EvaluatedClip:
    """A clip of the test set.

    Attributes:
        clip: the clip.
        samples: float32 [n] by sample rate, cut to the same seconds.
        source_rate: sample rate of the file in Hz.
        is_cut: True if the clip is longer than what is measured.
    """

    clip: Clip
    samples: dict[int, np.ndarray]
    source_rate: int
    is_cut: bool

    @property
    def category(self) -> str:
        """Label of its category, else the name of its dataset."""
        return self.clip.span.labels.category or self.clip.dataset


def fraction_of(clip: Clip, purpose: str) -> float:
    """Number from 0 to 1 that depends on the id of a clip and on the `purpose` only."""
    digest = hashlib.sha256(f"{purpose}\0{clip.id}".encode(errors="surrogateescape")).digest()
    return int.from_bytes(digest[:8]) / 2**64


def seed_of(clip: Clip) -> int:
    """Seed of random changes to a clip."""
    return int(fraction_of(clip, "seed") * 2**32)


def clips_to_measure(
    unit: Unit, output: UnitOutput, settings: EvaluateOptions, rates: Sequence[int]
) -> Iterator[EvaluatedClip]:
    """Yield the clips of a unit that are measured, at all `rates`; unusable ones are rejected or ignored in `output`.

    A clip is decoded once for each rate, so that codecs get the samples that they get in `tokenize`.
    """
    sound, clock = settings.sound, output.clock
    unused = UnusedSound(output, sound)
    for clip in clock.steps(READING, clips_of_channels(clips_of_unit(unit, output), sound)):
        if fraction_of(clip, "share") >= settings.share:
            continue
        with clock.during(READING):
            reader = ClipReader(clip, rates[0], sound)
            try:
                first, is_cut = _read(reader, rates[0], settings.max_seconds, sound)
                others = {
                    rate: _read(ClipReader(clip, rate, sound), rate, settings.max_seconds, sound)[0]
                    for rate in rates[1:]
                }
            except AudioError as error:
                count_undecodable(clip, error, output)
                unused.add(clip, reader.notes)
                continue
        output.read(clip.dataset, len(first) / rates[0])
        unused.add(clip, reader.notes)
        reject_rest(clip, reader.rest, output)
        yield EvaluatedClip(clip, {rates[0]: first, **others}, reader.notes.sample_rate, is_cut)


def _read(reader: ClipReader, rate: int, max_seconds: float | None, sound: SoundOptions) -> tuple[np.ndarray, bool]:
    """Read a clip up to `max_seconds`; returns its samples, and True if there are more."""
    wanted = None if max_seconds is None else max(1, round(max_seconds * rate))
    blocks, length = [np.zeros(0, np.float32)], 0
    for block in reader.blocks():
        blocks.append(block)
        length += len(block)
        if wanted is not None and length > wanted:
            break
    samples = np.concatenate(blocks)[:wanted]
    start = reader.clip.span.start
    sound.refuse_cancelled(reader.notes, start, start + len(samples) / rate, reader.clip.name)
    return samples, length > len(samples)
