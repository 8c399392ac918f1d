"""Options that decide which samples of a file become its mono sound."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, Self

from codectok.choices import CancelledChoice, ScaleChoice
from codectok.errors import AudioError, InputError

from .notes import DecodingNotes

# Some bytes can stand for years of silence: decoding ends somewhere.
LONGEST_FILE_SECONDS = 1e6

Channel = int | Literal["mix", "each"]


@dataclass(frozen=True)
class SoundOptions:
    """How the channels and the scale of a file become mono samples in [-1, 1].

    Attributes:
        channel: "mix" (mix all channels), "each" (each channel is a recording by itself), or the number of one channel,
            from 0 on.
        cancelled: where the mix is silent but its channels are not, use the "first" channel, or "reject" the clip.
        scale: "refuse" floats far beyond 1, or divide them by the full scale of integers ("auto").
        max_file_seconds: duration that is read of a file; None for `LONGEST_FILE_SECONDS`.

    Raises:
        InputError: a value is none of these.
    """

    channel: Channel = "mix"
    cancelled: CancelledChoice = "first"
    scale: ScaleChoice = "refuse"
    max_file_seconds: float | None = None

    def __post_init__(self) -> None:
        number = isinstance(self.channel, int) and not isinstance(self.channel, bool) and self.channel >= 0
        if not number and self.channel not in ("mix", "each"):
            raise InputError(f"A channel is a number from 0 on, mix or each, not {self.channel}.")
        if self.cancelled not in ("first", "reject"):
            raise InputError(f"Cancelled channels are handled by first or reject, not {self.cancelled}.")
        if self.scale not in ("refuse", "auto"):
            raise InputError(f"The scale is refuse or auto, not {self.scale}.")
        if self.max_file_seconds is not None and not 0 < self.max_file_seconds < math.inf:
            raise InputError(f"The longest file must have a number of seconds above 0, not {self.max_file_seconds:g}.")

    @classmethod
    def parse(
        cls, channel: str, cancelled: CancelledChoice, scale: ScaleChoice, max_file_seconds: float | None = None
    ) -> Self:
        """Create options from those of the command line, where `channel` is text."""
        known: dict[str, Channel] = {"mix": "mix", "each": "each"}
        number: Channel = int(channel) if channel.isascii() and channel.isdigit() else -1
        if channel not in known and number == -1:
            raise InputError(f"--channel is a number from 0 on, mix or each, not {channel}.")
        return cls(known.get(channel, number), cancelled, scale, max_file_seconds)

    def values(self) -> dict[str, Any]:
        """All options by name, as the plan of a job stores them; without a limit, as before there was one."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @property
    def longest_seconds(self) -> float:
        """Duration that is read of a file."""
        return LONGEST_FILE_SECONDS if self.max_file_seconds is None else self.max_file_seconds

    def for_channel(self, channel: int | None) -> SoundOptions:
        """Options for one recording: of `channel` if it is a number, else as given; "each" becomes "mix"."""
        if channel is None:
            channel_of_all: Channel = "mix" if self.channel == "each" else self.channel
            return replace(self, channel=channel_of_all)
        return replace(self, channel=channel)

    def refuse_cancelled(self, notes: DecodingNotes, start: float, end: float, where: str) -> None:
        """Raise an `AudioError` ("cancelled") if channels cancel between `start` and `end`, and this is to be rejected.

        Times are in seconds of the decoded file; `where` names the audio in the message.
        """
        if self.cancelled == "reject" and notes.cancels(start, end):
            message = f"The channels of {where} cancel each other; choose one of them with --channel."
            raise AudioError(message, "cancelled", end - start)


MIXED = SoundOptions()
