"""Rendered conversations: text, tokens and audio in order, and the marks that keep them apart in a rendered string."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from .conversations import RESERVED, AudioPart

# Characters that no text has (Unicode reserves them for such uses).
_BEGIN, _END, ESCAPE = (chr(RESERVED[number]) for number in range(3))
_DIGITS = [chr(RESERVED[8 + number]) for number in range(16)]


@dataclass(frozen=True)
class Piece:
    """A piece of a rendered conversation.

    Attributes:
        content: text, or the string of a token if `is_token`, or audio.
        learned: True if a model learns to generate it.
        is_token: True for a token.
    """

    content: str | AudioPart
    learned: bool
    is_token: bool = False


def mark_of(number: int) -> str:
    """Return a string of reserved characters that stands for the thing with this number."""
    return f"{_BEGIN}{''.join(_DIGITS[int(digit, 16)] for digit in f'{number:x}')}{_END}"


def marks_in(text: str) -> Iterator[tuple[int, int, int]]:
    """Yield the start, the end and the number of each mark in a text."""
    end = 0
    while (start := text.find(_BEGIN, end)) >= 0:
        end = text.index(_END, start) + 1
        digits = "".join(f"{_DIGITS.index(digit):x}" for digit in text[start + 1 : end - 1])
        yield start, end, int(digits, 16)


class TokenFinder:
    """Finds strings of tokens in rendered text, and hides those that users wrote.

    Args:
        names: strings of the tokens.
    """

    def __init__(self, names: Collection[str]) -> None:
        self._names = frozenset(names)
        self._lengths: dict[str, list[int]] = {}
        for first in {name[0] for name in self._names}:
            lengths = {len(name) for name in self._names if name[0] == first}
            self._lengths[first] = sorted(lengths, reverse=True)
        self._prefixes = frozenset(name[:length] for name in self._names for length in range(1, len(name)))

    def hide(self, text: str) -> str:
        """Put `ESCAPE` before each string of a token in a user's text, also before one that the text ends within."""
        found = [
            start for start in self._starts(text) if self._length_at(text, start) or text[start:] in self._prefixes
        ]
        pieces = [text[first:last] for first, last in zip([0, *found], [*found, len(text)], strict=True)]
        return ESCAPE.join(pieces)

    def find(self, text: str) -> Iterator[tuple[int, int]]:
        """Yield start and end of each token's string, the longest from the left; hidden ones are left out."""
        end = 0
        for start in self._starts(text):
            if start < end or (start and text[start - 1] == ESCAPE):
                continue
            length = self._length_at(text, start)
            if length:
                end = start + length
                yield start, end

    def _starts(self, text: str) -> Iterator[int]:
        """Yield the places of characters with which a token begins."""
        if len(self._lengths) > 64:
            yield from (place for place, character in enumerate(text) if character in self._lengths)
            return
        places = []
        for first in self._lengths:
            place = text.find(first)
            while place >= 0:
                places.append(place)
                place = text.find(first, place + 1)
        yield from sorted(places)

    def _length_at(self, text: str, start: int) -> int:
        """Length of the longest token whose string begins at `start`; 0 without one."""
        for length in self._lengths[text[start]]:
            found = text[start : start + length]
            if len(found) == length and found in self._names:
                return length
        return 0
