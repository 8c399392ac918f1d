"""Finds the parts of a rendered conversation that the assistant generates, for templates that do not mark them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .conversations import ASSISTANT, ConversationError
from .rendering import TokenFinder

Render = Callable[[Sequence[Mapping[str, Any]], bool], str]
"""Renders messages; the argument behind them is True to add the header of an assistant's turn."""

Span = tuple[int, int]


class LearnedSpans:
    """Spans of the assistant's turns without their headers, up to the token that ends a turn.

    A turn begins where the messages before it end if they are rendered with a generation prompt. It ends where the
    messages up to it end, or with the string that ends the answer of a short conversation.

    Args:
        render: renders messages with the template.
        finder: of tokens in rendered text.
        known: strings of the template that were found out before; those of this template are added.
    """

    def __init__(self, render: Render, finder: TokenFinder, known: dict[str, str]) -> None:
        self._render, self._finder, self._known = render, finder, known

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
            between = [message for message in messages[number + 1 : following] if message["role"] == "user"]
            ends = (end for end in self._ends(messages[: number + 1], start, text) if end <= limit)
            end = next((end for end in ends if _hold(between, text[end:limit])), None)
            if end is None or end < start:
                raise _unstable(number)
            spans.append((start, end))
        return spans

    def _start(self, messages: Sequence[Mapping[str, Any]], number: int, text: str) -> int:
        before = messages[:number]
        head = self._render(before, True)
        if not text.startswith(head):
            raise _unstable(number)
        header = ""
        if head == self._render(before, False):
            # The template ignores the request for a header, or has none.
            header = self._header()
        return len(head) + (len(header) if text.startswith(header, len(head)) else 0)

    def _ends(self, messages: Sequence[Mapping[str, Any]], start: int, text: str) -> list[int]:
        """Return the places where a turn may end, the most certain one first."""
        ends = []
        whole = self._render(messages, False)
        if text.startswith(whole):
            ends.append(self._end_in(text, start, len(whole)))
        ending = self._ending()
        if ending:
            # Behind a token of the template, since a text may hold the same string.
            tokens = (start + end for _, end in self._finder.find(text[start:]))
            ends += [end for end in tokens if text.endswith(ending, start, end)][:1]
        return ends

    def _end_in(self, text: str, start: int, end: int) -> int:
        """Return the end of the last token in a span, or of its text if spaces alone follow no token."""
        last = max((start + last for _, last in self._finder.find(text[start:end])), default=start)
        rest = text[last:end]
        return last if last > start and not rest.strip() else start + len(text[start:end].rstrip())

    def _header(self) -> str:
        """String before an answer, in a template without a generation prompt."""
        if "header" not in self._known:
            question = self._render([_QUESTION], False)
            both = self._render(_PROBE, False)
            found = both.startswith(question) and "Yes." in both
            self._known["header"] = both[len(question) : both.index("Yes.", len(question))] if found else ""
        return self._known["header"]

    def _ending(self) -> str:
        """String behind an answer, up to its last token; "" without a token."""
        if "ending" not in self._known:
            _, _, rest = self._render(_PROBE, False).rpartition("Yes.")
            self._known["ending"] = rest[: max((end for _, end in self._finder.find(rest)), default=0)]
        return self._known["ending"]


_QUESTION = {"role": "user", "content": "Why?"}
_PROBE = (_QUESTION, {"role": ASSISTANT, "content": "Yes."})


def _hold(messages: Sequence[Mapping[str, Any]], text: str) -> bool:
    return all(str(message.get("content", "")).strip() in text for message in messages)


def _unstable(number: int) -> ConversationError:
    return ConversationError(
        f"The chat template renders the turns before message {number + 1} differently without it, so that the part to"
        f" learn is unknown; give a template with {{% generation %}}, or conversations that end with this answer."
    )
