"""Clips of each channel of a file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace

from codectok.audio.channels.selection import channel_count
from codectok.audio.notes import DecodingNotes
from codectok.audio.sound import SoundOptions
from codectok.audio.waveform import MAX_CHANNELS
from codectok.extras import with_extra

from .clip import Clip

CHANNEL_MARK = "-c"  # between the id of a clip and the number of its channel


def clips_of_channels(clips: Iterable[Clip], sound: SoundOptions) -> Iterator[Clip]:
    """Yield `clips`; with the option "each", one for each channel in place of a clip of a file with several.

    A clip whose channel a manifest names stays as it is, and so does one of a mono file.
    """
    for clip in clips:
        count = channel_count(clip.audio, clip.name) if wants_each(sound, clip.span.channel) else 1
        if 1 < count <= MAX_CHANNELS:
            for channel in range(count):
                yield replace(clip, id=f"{clip.id}{CHANNEL_MARK}{channel}", span=replace(clip.span, channel=channel))
        else:
            yield clip


def wants_each(sound: SoundOptions, channel: int | None) -> bool:
    """Return True if a recording is to be split into its channels; `channel` is the one that a manifest names."""
    return sound.channel == "each" and channel is None


def extra_with_channel(extra: str | None, channel: int | None, notes: DecodingNotes) -> str | None:
    """Add the channel of a clip to its further labels, if its file has several."""
    if channel is None or notes.channels < 2:
        return extra
    return with_extra(extra, json.dumps({"channel": channel}))
