"""A row of the results."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RatingRow:
    """The rating of a stimulus by a listener.

    Attributes:
        listener: name or code.
        trial: id of the page.
        clip, source: id of the clip, and its source.
        system: name of the system.
        scale, value: the rating.
        seconds_listened: for which the listener has played the stimulus.
        complete: True if the listener has completed the page.
        time: of the last change, ISO 8601 in UTC.
    """

    listener: str
    trial: str
    clip: str
    source: str
    system: str
    scale: str
    value: int
    seconds_listened: float
    complete: bool
    time: str
