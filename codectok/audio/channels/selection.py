"""Channels of a decoded stream: one of them, or all of them mixed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import soundfile

from codectok.audio.decoding import DecodedStream, decoded_streams
from codectok.audio.notes import DecodingNotes
from codectok.audio.sound import SoundOptions
from codectok.audio.waveform import FAR_BEYOND, MAX_CHANNELS, peak_of
from codectok.errors import AudioError
from codectok.reading import reading

from .mixing import Mixer
from .positions import mixing_weights


def one_channel(
    blocks: Iterable[np.ndarray],
    stream: DecodedStream,
    sound: SoundOptions,
    notes: DecodingNotes,
    start: float,
    where: str,
) -> Iterator[np.ndarray]:
    """Choose or mix the channels of `blocks` [n, channels] to [n]."""
    channels = stream.channels
    notes.channels = max(notes.channels, channels)
    if isinstance(sound.channel, int):
        number = sound.channel
        if number >= channels:
            has = f"{channels} channels, numbered from 0" if channels > 1 else "only channel 0"
            raise AudioError(f"{where} lacks channel {number}: it has {has}.", "unsupported")
        return (block[:, number] for block in blocks)
    if channels == 1:
        return (block[:, 0] for block in blocks)
    if channels > MAX_CHANNELS:
        raise too_many_channels(channels, where)
    notes.mixed_channels = max(notes.mixed_channels, channels)
    weights = mixing_weights(channels, stream.positions)
    return Mixer(channels, stream.sample_rate, weights, notes, start).mix(blocks)


def counted(blocks: Iterable[np.ndarray], notes: DecodingNotes, where: str) -> Iterator[np.ndarray]:
    """Pass on `blocks` [n], and count the samples beyond full scale in `notes`."""
    for block in blocks:
        peak = peak_of(block)
        if peak > FAR_BEYOND:
            message = f"{where} has samples up to {peak:,.5g}, far beyond full scale, which is 1; pass --scale auto."
            raise AudioError(message, "clipped")
        if peak > 1.0:
            notes.loud_samples += int(np.count_nonzero(np.abs(block) > 1.0))
        yield block


def channel_count(source: Path | bytes, where: str) -> int:
    """Number of channels of an audio file, of the stream with the most; 0 if it cannot be read."""
    count = 0
    try:
        with reading(where, (soundfile.SoundFileError,)):
            for stream in decoded_streams(source, where, DecodingNotes()):
                count = max(count, stream.channels)
    except AudioError:
        pass  # decoding raises it again
    return count


def too_many_channels(channels: int, where: str) -> AudioError:
    """Error for a file with more channels than can be mixed."""
    message = f"{where} has {channels:,} channels, and at most {MAX_CHANNELS} can be mixed; choose one with --channel."
    return AudioError(message, "unsupported")
