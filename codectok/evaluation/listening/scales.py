"""Scales on which listeners rate, and the kinds of pages that ask for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

PageKind = Literal["clarity", "mushra"]


@dataclass(frozen=True)
class Scale:
    """A scale of whole numbers.

    Attributes:
        name: in results.
        title: for listeners.
        lowest, highest: its ends.
        words: meaning of the numbers or of equal ranges of them, from the lowest on.
    """

    name: str
    title: str
    lowest: int
    highest: int
    words: tuple[str, ...] = ("bad", "poor", "fair", "good", "excellent")

    def holds(self, value: int) -> bool:
        """Return True if `value` is on the scale."""
        return self.lowest <= value <= self.highest


SPEECH_CLARITY = Scale("speech_clarity", "Speech clarity", 1, 5)
BACKGROUND_CLARITY = Scale("background_clarity", "Background clarity", 1, 5)
MUSHRA = Scale("mushra", "Quality", 0, 100)

SCALES: Mapping[PageKind, tuple[Scale, ...]] = {
    "clarity": (SPEECH_CLARITY, BACKGROUND_CLARITY),
    "mushra": (MUSHRA,),
}
BY_NAME = {scale.name: scale for scales in SCALES.values() for scale in scales}
SCALE_ORDER = tuple(BY_NAME)
