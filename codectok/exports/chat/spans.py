"""Finds the parts of a rendered conversation that the assistant generates, for templates that do not mark them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from .conversations import ASSISTANT, ConversationError
from .rendering import TokenFinder

Render = Callable[[Sequence[Mapping[str, Any]], bool], str]
"""Renders messages; the argument behind them is True to add the header of an assistant's turn."""

Span = tuple[int, int]

_ANSWER = "Yes."
# Two questions and answers, to find out about a template.
PROBE = (("user", "Why?"), (ASSISTANT, _ANSWER), ("user", "Sure?"), (ASSISTANT, "No!"))


class LearnedSpans:
    """Spans of the assistant's turns without their headers, up to the token that ends a turn.

    A turn begins where the generation prompt behind the messages before it ends, as far as the conversation has the
    same text. It ends where the messages up to it end, or with a token that ends an answer of a short conversation.

    Args:
        render: renders messages with the template.
        content_of: returns the content of a message with a text.
        finder: of tokens in rendered text.
        known: strings of the template that were found out before; further ones are added.
    """

    def __init__(
        self, render: Render, content_of: Callable[[str], Any], finder: TokenFinder, known: dict[str, tuple[str, ...]]
    ) -> None:
        self._render, self._finder, self._known = render, finder, known
        self._probe = [{"role": role, "content": content_of(text)} for role, text in PROBE]

    def of(self, messages: Sequence[Mapping[str, Any]], text: str) -> list[Span]:
        """Return the spans in `text`, the rendered `messages`.

        Raises:
            ConversationError: the template renders the beginning of the conversation differently without the rest.
        """
        turns = [number for number, message in enumerate(messages) if message["role"] == ASSISTANT]
        starts = [self._start(messages, number, text) for number in turns]
        spans = []
        for number, start, following, limit in zip(
            turns, starts, [*turns[1:], len(messages)], [*starts[1:], len(text)], strict=True
        ):
            between = [text_of(message) for message in messages[number + 1 : following] if message["role"] == "user"]
            ends = (end for end in self._ends(messages[: number + 1], start, text) if end <= limit)
            end = next((end for end in ends if all(one in text[end:limit] for one in between)), None)
            if end is None or end < start:
                raise _unstable(number)
            spans.append((start, end))
        return spans

    def _start(self, messages: Sequence[Mapping[str, Any]], number: int, text: str) -> int:
        if not number:
            # Templates may need a first message.
            header = self._header()
            place = text.find(header)
            if place < 0 or not header:
                raise _unstable(number)
            return place + len(header)
        before = messages[:number]
        prompt, bare = self._render(before, True), self._render(before, False)
        if prompt == bare and text.startswith(bare):
            # The template ignores the request for a prompt, or has none.
            header = self._header()
            return len(bare) + (len(header) if text.startswith(header, len(bare)) else 0)
        if text.startswith(prompt):
            return len(prompt)
        same = len(commonprefix(prompt, text))
        # A prompt may go on with a token that this answer lacks, such as <think>.
        borders = [end for _, end in self._finder.find(prompt)] + [
            end for end in range(1, same + 1) if prompt[end - 1] == "\n"
        ]
        start = max((end for end in borders if end <= same), default=0)
        if start <= len(commonprefix(prompt, bare)):
            raise _unstable(number)
        return start

    def _ends(self, messages: Sequence[Mapping[str, Any]], start: int, text: str) -> Iterator[int]:
        """Yield the places where a turn may end, the most certain one first."""
        whole = self._render(messages, False)
        if text.startswith(whole):
            yield self._end_in(text, start, len(whole))
        # Behind tokens of the template, since a text may hold the same strings.
        tokens = [start + end for _, end in self._finder.find(text[start:])]
        for ending in self._endings():
            yield from [end for end in tokens if text.endswith(ending, start, end)][:1]

    def _end_in(self, text: str, start: int, end: int) -> int:
        """Return the end of the last token in a span, or of its text if more than spaces follow the token."""
        last = max((start + last for _, last in self._finder.find(text[start:end])), default=start)
        rest = text[last:end]
        return last if last > start and not rest.strip() else start + len(text[start:end].rstrip())

    def _header(self) -> str:
        """String before an answer, in a template without a generation prompt."""
        if "header" not in self._known:
            question, both = (self._render(self._probe[:count], False) for count in (1, 2))
            found = both.startswith(question) and _ANSWER in both
            self._known["header"] = (both[len(question) : both.index(_ANSWER, len(question))] if found else "",)
        return self._known["header"][0]

    def _endings(self) -> tuple[str, ...]:
        """Strings behind an answer, each up to a token: all tokens behind a last answer, and fewer."""
        if "endings" not in self._known:
            last, inner = (self._render(self._probe[:count], False).rpartition(_ANSWER)[2] for count in (2, 3))
            endings = [last[:end] for _, end in self._finder.find(last)][::-1]
            endings += [inner[:end] for _, end in self._finder.find(inner)][:1]
            self._known["endings"] = tuple(dict.fromkeys(endings))
        return self._known["endings"]


def text_of(message: Mapping[str, Any]) -> str:
    """Return the text of a message, without spaces around it; it may be in a list of parts."""
    content = message.get("content", "")
    parts = [part.get("text", "") for part in content] if isinstance(content, list) else [content]
    return "".join(map(str, parts)).strip()


def commonprefix(one: str, other: str) -> str:
    """Return the longest string with which both begin."""
    length = min(len(one), len(other))
    return one[: next((place for place in range(length) if one[place] != other[place]), length)]


def _unstable(number: int) -> ConversationError:
    return ConversationError(
        f"The chat template renders the turns around message {number + 1} differently without the later ones, so that"
        " the part to learn is unknown; give a template with {% generation %}, or conversations that end with this"
        " answer."
    )
