"""Cuts and recordings of lhotse.

`Cut.load_audio` is the measure: a cut becomes the same samples, with the words of all its supervisions, or is refused.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from codectok.extras import is_stored

from .supervisions import KNOWN_FIELDS
from .values import EMPTY, seconds_of

SINGLE = (None, "Cut", "MonoCut", "MultiCut")  # kinds of cuts of one recording
# Lhotse resamples recordings; here the job's sample rate decides.
NEUTRAL_TRANSFORMS = ("Resample",)
REFUSED_SOURCES = {
    "command": "its recording is the output of a command, which is never executed",
    "memory": "its recording is stored inside the manifest",
    "shar": "its recording lies in a tar that is not beside the cuts; name the Shar folder",
}
# Fields of a cut that are read, or that say nothing about it.
CUT_FIELDS = ("id", "type", "start", "duration", "channel", "supervisions", "recording", "features", "custom")

SUPERVISION_FIELDS = frozenset(("id", "recording_id", "start", "duration"))


class CutValues(NamedTuple):
    """A cut as a line of a plain manifest.

    Attributes:
        values: of the line.
        channel: of the file; None for all.
        extra: further labels.
        unused: names of fields that are not used.
    """

    values: dict[str, Any]
    channel: int | None
    extra: dict[str, Any]
    unused: tuple[str, ...]


def is_of_lhotse(values: Mapping[str, Any]) -> bool:
    """True for a cut, a recording or a supervision of lhotse."""
    if isinstance(values.get("recording"), dict) or values.get("type") in ("MonoCut", "MultiCut"):
        return True
    if values.get("type") in ("MixedCut", "PaddingCut") or _is_recording(values):
        return True
    return SUPERVISION_FIELDS <= values.keys() <= {*KNOWN_FIELDS, "custom", "gender"}


def values_of_cut(values: dict[str, Any], sources: Collection[str] | None = ("file", "url")) -> CutValues:
    """The values of a cut of one recording, or of a whole recording.

    Args:
        values: a line of cuts or recordings.
        sources: kinds of files that can be read; None for all.

    Raises:
        ValueError: the cut's audio is not a span of a file, or is changed; the message is the end of a sentence.
    """
    kind = values.get("type")
    if kind == "PaddingCut":
        raise ValueError("it is a cut of padding, without audio")
    if kind == "MixedCut" or "tracks" in values:
        raise ValueError("it mixes or pads cuts; only cuts of one recording in a file can be read")
    if _is_recording(values):
        values = _whole(values)
    elif "recording_id" in values and "recording" not in values:
        raise ValueError("it is a supervision without its recording; name lhotse's recordings or cuts")
    elif kind not in SINGLE:
        raise ValueError(f"{kind!r} is not a kind of cut that can be read")
    recording = values.get("recording")
    if not isinstance(recording, dict):
        raise ValueError("its cut has no recording")
    unused = _check_transforms(recording)
    path, channel = _file_and_channel(recording, values.get("channel"), sources)
    found: dict[str, Any] = {"id": values.get("id"), "path": path, **_times(values, recording)}
    supervisions = values.get("supervisions")
    if supervisions not in (*EMPTY, []):
        _check_channels(values.get("channel"), supervisions)
        found["supervisions"] = supervisions
    extra, left = _labels(values.get("custom"), "custom")
    others, left_of_cut = _labels({key: values[key] for key in values if key not in CUT_FIELDS}, "cut")
    unused += tuple(name for name in ("features",) if values.get(name) is not None)
    return CutValues(found, channel, {**others, **extra}, (*unused, *left, *left_of_cut))


def values_of_cut_in_tar(values: dict[str, Any]) -> CutValues:
    """The values of a cut whose recording is a member of a tar, as in Shar; raises `ValueError` as `values_of_cut`."""
    if values.get("recording") is None and "tracks" not in values:
        channel = values.get("channel", 0)
        channels = channel if isinstance(channel, list) else [channel]
        values = values | {"recording": {"sources": [{"type": "shar", "channels": channels, "source": ""}]}}
    return values_of_cut(values, None)


def check_times(values: dict[str, Any]) -> None:
    """Raise `ValueError` if a cut begins after the end of its recording."""
    recording = values.get("recording")
    if isinstance(recording, dict):
        start, whole = seconds_of(values, "start"), seconds_of(recording, "duration")
        if start is not None and whole is not None and start >= whole > 0:
            raise ValueError(f"its start ({start:g} s) is not before the end of its recording ({whole:g} s)")


def _whole(recording: dict[str, Any]) -> dict[str, Any]:
    """The cut of a whole recording; its end matters only for the times of supervisions."""
    cut = {"id": recording.get("id"), "recording": recording, "supervisions": recording.get("supervisions")}
    return cut | ({"start": 0.0, "duration": recording.get("duration")} if cut["supervisions"] else {})


def _times(values: dict[str, Any], recording: dict[str, Any]) -> dict[str, Any]:
    """Times of a cut, on the grid of samples where start and duration would not be rounded as lhotse rounds them."""
    start, duration, rate = (
        seconds_of(values, "start"), seconds_of(values, "duration"), seconds_of(recording, "sampling_rate")
    )  # fmt: skip
    if start is not None and start >= 0 and duration is not None and duration > 0 and rate is not None and rate > 0:
        first, count = _samples(start * rate), _samples(duration * rate)
        if (round(start * rate), round((start + duration) * rate)) != (first, first + count):
            return {"start": first / rate, "end": (first + max(1, count)) / rate}
    return {"start": values.get("start"), "duration": values.get("duration")}


def _samples(number: float) -> int:
    return math.floor(round(number, 8) + 0.5)


def _is_recording(values: Mapping[str, Any]) -> bool:
    return isinstance(values.get("sources"), list) and "sampling_rate" in values and "recording" not in values


def _check_transforms(recording: dict[str, Any]) -> tuple[str, ...]:
    transforms = recording.get("transforms") or []
    if not isinstance(transforms, list):
        raise ValueError("the transforms of its recording are not a list")
    names = [str(one.get("name") if isinstance(one, dict) else one) for one in transforms]
    changing = [name for name in names if name not in NEUTRAL_TRANSFORMS]
    if changing:
        raise ValueError(f"the transforms of its recording ({', '.join(changing)}) would change the audio")
    return tuple(f"transforms: {name}" for name in names)


def _file_and_channel(recording: dict[str, Any], wanted: Any, kinds: Collection[str] | None) -> tuple[Any, int | None]:
    sources = recording.get("sources") or []
    if not isinstance(sources, list) or not sources or not all(isinstance(source, dict) for source in sources):
        raise ValueError("its recording does not say which files it is made of")
    channels = [_channels(source) for source in sources]
    known = [channel for several in channels for channel in several]
    if wanted is None:
        chosen = set(known)
    else:
        chosen = set(wanted) if isinstance(wanted, list) else {wanted}
        if not all(isinstance(one, int) and not isinstance(one, bool) for one in chosen):
            raise ValueError(f"its channel ({wanted!r}) is not a number from 0 on")
        missing = chosen - set(known)
        if missing:
            raise ValueError(f"its recording has no channel {', '.join(map(str, sorted(missing)))}")
    places = [place for place, several in enumerate(channels) if chosen & set(several)]
    if len(places) != 1:
        raise ValueError("its channels are in several files" if places else "its channel list is empty")
    source, own = sources[places[0]], channels[places[0]]
    kind = source.get("type")
    if kinds is not None and kind not in kinds:
        raise ValueError(REFUSED_SOURCES.get(str(kind), f"its recording is of the kind {kind!r}, which cannot be read"))
    if chosen == set(own):
        return source.get("source"), None
    if len(chosen) > 1:
        raise ValueError(f"it takes {len(chosen)} of {len(own)} channels; only one of them, or all, can be read")
    return source.get("source"), own.index(next(iter(chosen)))


def _check_channels(wanted: Any, supervisions: Any) -> None:
    """Raise `ValueError` if words are of a channel that the cut does not take."""
    if wanted is None or not isinstance(supervisions, list):
        return
    own = _listed(wanted)
    for one in supervisions:
        given = one.get("channel") if isinstance(one, dict) else None
        if given is not None and one.get("text") and not any(channel in own for channel in _listed(given)):
            raise ValueError(f"one of its supervisions is of channel {given}, which the cut does not take")


def _listed(channels: Any) -> list[Any]:
    return channels if isinstance(channels, list) else [channels]


def _channels(source: dict[str, Any]) -> list[int]:
    channels = source.get("channels", [0])
    if isinstance(channels, int):
        channels = [channels]
    if not isinstance(channels, list) or not all(isinstance(one, int) for one in channels) or not channels:
        raise ValueError("the channels of its recording are not a list of numbers")
    return channels


def _labels(custom: Any, where: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Split custom fields into labels and the names of others, which are stored arrays or recordings."""
    if not isinstance(custom, dict):
        return {}, ()
    labels = {name: value for name, value in custom.items() if not is_stored(value) and value is not None}
    left = tuple(f"{where}: {name}" for name, value in custom.items() if is_stored(value))
    return labels, left
