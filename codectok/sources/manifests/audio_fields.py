"""Fields of a plain manifest that change the audio: obeyed, or a reason not to use the line."""

from __future__ import annotations

import math
from typing import Any

from codectok.extras import is_missing
from codectok.sources.fields import is_missing_number
from codectok.sources.labels import columns_of

# Values that leave the audio as it is; any other value makes the line unusable.
NEUTRAL: dict[str, tuple[float, ...]] = {
    "gain": (0.0, 1.0),  # in dB, or a factor
    "gain_db": (0.0,),
    "volume": (1.0,),
    "speed": (1.0,),
    "tempo": (1.0,),
    "pitch": (0.0,),
    "pitch_shift": (0.0,),
}
LISTS = ("transforms", "augmentations", "augmentation", "effects", "sox_effects", "tracks")
# Times in samples, and the fields that say the same in seconds.
SAMPLES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("frame_offset", "start_sample", "start_frame", "offset_samples"), ("start", "start_ms")),
    **dict.fromkeys(("end_sample", "end_frame"), ("end", "end_ms", "duration", "duration_ms")),
}
SIDES = {"left": 0, "right": 1, "l": 0, "r": 1}
MIXED = ("average", "mean", "mix", "mono", "all")
CHANNELS = ("channel", "channel_selector", "channels")
FIELDS = frozenset((*NEUTRAL, *LISTS, *SAMPLES, *CHANNELS))


def take_channel(values: dict[str, Any]) -> int | None:
    """Remove the fields that change the audio from `values`, and return the channel that they name.

    None stands for all channels, mixed.

    Raises:
        ValueError: a field asks for a change that is not made; the message is the end of a sentence.
    """
    if FIELDS.isdisjoint([name.strip().lower() for name in values]):
        return None
    names = {name.strip().lower(): name for name in values}
    for field, neutral in NEUTRAL.items():
        if field in names and _is_set(values.pop(names[field]), neutral):
            raise ValueError(f"its {field} would change the audio, which is not done here")
    for field in LISTS:
        if field in names and not _is_empty(values.pop(names[field])):
            raise ValueError(f"its {field} would change the audio, which is not done here")
    columns = columns_of(tuple(values))
    timed = {time for time, found in columns.items() if not all(is_missing_number(values[name]) for name in found)}
    for field, times in SAMPLES.items():
        if field in names and timed.isdisjoint(times) and _is_set(values[names[field]], (0.0,)):
            raise ValueError(f"its {field} is a time in samples; write `{times[0]}` in seconds")
    given = [names[name] for name in ("channel", "channel_selector") if name in names]
    found = [field for field in given if _is_channel(values[field])]
    if "channels" in names and isinstance(values[names["channels"]], list):  # a number would count them
        found.append(names["channels"])
    channels = {field: channel_of(values[field]) for field in found}
    for field in channels:
        del values[field]
    if len(set(channels.values())) > 1:
        raise ValueError("it names its channel twice, differently")
    return next(iter(channels.values()), None)


def channel_of(value: Any) -> int | None:
    """Number of a channel, from 0 on; None for all of them.

    Raises:
        ValueError: the value is not a channel, or is some of several.
    """
    if isinstance(value, list):
        if len(value) != 1:
            raise ValueError(f"it selects several channels ({value}); name one, or none for the mean of all")
        value = value[0]
    if isinstance(value, str):
        text = value.strip().lower()
        if text in MIXED or not text:
            return None
        if text in SIDES:
            return SIDES[text]
    number = _number(value)
    if number is None and value is None:
        return None
    if number is None or number < 0 or number != int(number):
        raise ValueError(f"its channel ({value!r}) is not a number from 0 on")
    return int(number)


def _is_channel(value: Any) -> bool:
    # Other words name the channel of a broadcaster, a label like others.
    if not isinstance(value, str):
        return True
    text = value.strip().lower()
    return not text or text in MIXED or text in SIDES or _number(text) is not None


def _is_empty(value: Any) -> bool:
    return is_missing(value) or value in ([], {}, "[]", "{}")


def _is_set(value: Any, neutral: tuple[float, ...]) -> bool:
    return not is_missing_number(value) and (isinstance(value, bool) or _number(value) not in neutral)


def _number(value: Any) -> float | None:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
