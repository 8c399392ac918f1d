"""Chat templates in the language of Jinja: the one of a tokenizer, or one from a file."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Any

from codectok.errors import InputError, shortened
from codectok.exports.tokenizer import tokenizer_errors

from .conversations import ASSISTANT, AudioPart, Conversation, ConversationError, TextPart, TokenPart, Turn
from .rendering import ESCAPE, Piece, TokenFinder, mark_of, marks_in
from .spans import PROBE, LearnedSpans
from .template import ConversationTemplate

_DATE_CALL = re.compile(r"""strftime_now\(\s*(['"])(.*?)\1\s*\)""")
_ANY_DATE_CALL = re.compile(r"strftime_now\s*\(")
_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")


class JinjaTemplate(ConversationTemplate):
    """The chat template of a tokenizer, or one from a file.

    Args:
        tokenizer: of `transformers`.
        folder: of the tokenizer, for messages.
        source: a template instead of the tokenizer's; None for that.
        today: date that the template writes where it asks for today's.

    Raises:
        InputError: the tokenizer has no template, or it needs the date.
    """

    def __init__(self, tokenizer: Any, folder: Path, source: str | None = None, today: date | None = None) -> None:
        self._folder, self._in_parts = folder, False
        # Strings that `LearnedSpans` finds out about the template, for each form of contents, with and without tools.
        self._known: defaultdict[tuple[bool, bool], dict[str, tuple[str, ...]]] = defaultdict(dict)
        self._special = dict(tokenizer.special_tokens_map)
        self._sources = {
            with_tools: _dated(_source(tokenizer, folder, source, with_tools), today) for with_tools in (False, True)
        }
        described = repr((sorted(self._special.items()), self._sources[False], self._sources[True]))
        self.label = f"{'tokenizer' if source is None else 'file'} {hashlib.sha256(described.encode()).hexdigest()}"

    def check(self, finder: TokenFinder) -> None:
        """Render a short conversation, with contents as text, or else as lists of parts."""
        problems = []
        for self._in_parts in (False, True):
            try:
                self._try(finder)
            except ConversationError as error:
                problems.append(shortened(error))
            else:
                return
        raise InputError(f"The chat template of {self._folder} cannot be used: {problems[0]}.")

    def _try(self, finder: TokenFinder) -> None:
        turns = [Turn(role, (TextPart(text),), learned=role == ASSISTANT) for role, text in PROBE]
        pieces = self.render(Conversation(tuple(turns)), finder)
        for role, text in PROBE:
            searched = [piece for piece in pieces if piece.learned or role != ASSISTANT]
            if text not in "".join(str(piece.content) for piece in searched):
                wanted = "a part to be learned" if role == ASSISTANT else "text"
                raise ConversationError(f"It does not write a message of the {role} as {wanted}.")

    def _content_of(self, text: str) -> str | list[dict[str, str]]:
        return [{"type": "text", "text": text}] if self._in_parts else text

    def render(self, conversation: Conversation, finder: TokenFinder) -> list[Piece]:
        """Render the messages; strings like tokens in texts are text.

        A template may decide by the texts that it is given. If a hidden string changes the decision, the conversation
        is refused.
        """
        tools = list(conversation.tools)
        hidden, audio = _messages(conversation, self._content_of, finder.hide)
        text, spans = self._rendered(hidden, conversation.turns, _strings(tools, finder.hide), finder)
        shown, _ = _messages(conversation, self._content_of, str)
        if ESCAPE in text or hidden != shown:
            plain, _ = self._render(shown, tools)
            if text.replace(ESCAPE, "") != plain:
                raise ConversationError(
                    "The chat template handles a string in a text as a token, such as <think>; put such parts into"
                    " their own fields ('reasoning_content', 'tool_calls')."
                )
        found = sorted(number for _, _, number in marks_in(text))
        if found != list(range(len(audio))):
            missing = next((number for number in range(len(audio)) if found.count(number) != 1), 0)
            raise ConversationError(
                f"The chat template does not write the audio {audio[missing].reference or missing + 1} exactly once."
            )
        return list(_pieces(text, spans, finder, audio))

    def _rendered(
        self, messages: list[dict[str, Any]], turns: Sequence[Turn], tools: Any, finder: TokenFinder
    ) -> tuple[str, list[tuple[int, int]]]:
        text, generated = self._render(messages, tools)
        if generated is None:
            known = self._known[self._in_parts, bool(tools)]
            generated = LearnedSpans(self._renderer(tools), self._content_of, finder, known).of(messages, text)
        spans = [(start, end) for start, end in _learned(generated, turns) if start < end]
        if not spans:
            raise ConversationError("The chat template marks nothing in it that is learned.")
        return text, spans

    def _renderer(self, tools: Any) -> Callable[[Sequence[Mapping[str, Any]], bool], str]:
        return lambda messages, prompt: self._render(list(messages), tools, prompt)[0]

    def _render(
        self, messages: Sequence[Mapping[str, Any]], tools: Any, prompt: bool = False
    ) -> tuple[str, list[tuple[int, int]] | None]:
        """Return the text, and the spans that the template marks as generated; None if it does not."""
        from jinja2.exceptions import TemplateError
        from transformers.utils.chat_template_utils import render_jinja_template

        source = self._sources[bool(tools)]
        marked = _GENERATION.search(source) is not None
        try:
            rendered: Any = render_jinja_template(
                conversations=[[dict(message) for message in messages]],
                tools=tools or None,
                chat_template=source,
                return_assistant_tokens_mask=marked,
                add_generation_prompt=prompt,
                **self._special,
            )
        except ImportError as error:
            raise InputError(f"The chat template cannot be used: {shortened(error)}.") from None
        except (
            TemplateError,
            TypeError,
            ValueError,
            LookupError,
            AttributeError,
            ArithmeticError,
            RuntimeError,
        ) as error:
            raise ConversationError(f"The chat template refuses it: {shortened(error)}.") from None
        texts, generated = rendered
        return texts[0], [(start, end) for start, end in generated[0]] if marked else None


def _source(tokenizer: Any, folder: Path, source: str | None, with_tools: bool) -> str:
    if source is not None:
        return source
    if not tokenizer.chat_template:
        raise InputError(
            f"The tokenizer in {folder} has no chat template; give that of a model for conversations, or pass"
            " --template with a Jinja file or unitts."
        )
    with tokenizer_errors(f"The chat template of {folder} cannot be used"):
        return str(tokenizer.get_chat_template(None, [{}] if with_tools else None))


def _dated(source: str, today: date | None) -> str:
    """Write a date in place of today's, which would change the output from day to day."""
    if not _ANY_DATE_CALL.search(source):
        return source
    if today is None:
        raise InputError(
            "The chat template writes today's date; pass --date YYYY-MM-DD with the one to write, so that the output is"
            " the same on every day."
        )
    dated = _DATE_CALL.sub(lambda found: repr(today.strftime(found[2])), source)
    if _ANY_DATE_CALL.search(dated):
        raise InputError("The chat template computes the form of today's date; replace it in a file, for --template.")
    return dated


def _messages(
    conversation: Conversation, content_of: Callable[[str], Any], hide: Callable[[str], str]
) -> tuple[list[dict[str, Any]], list[AudioPart]]:
    """Return the messages for a template, with a mark in place of each audio, and the audio."""
    audio: list[AudioPart] = []
    messages = []
    for turn in conversation.turns:
        texts = [""]
        contents = []
        for part in turn.parts:
            if isinstance(part, TokenPart):
                raise ConversationError(f"It has a content with {part.token}; only the template unitts writes those.")
            if isinstance(part, TextPart):
                texts[-1] += part.text
                continue
            contents += [hide(texts.pop()), mark_of(len(audio))]
            texts.append("")
            audio.append(turn.placed(part))
        contents.append(hide(texts[-1]))
        message: dict[str, Any] = {"role": turn.role}
        if turn.parts or not turn.fields:
            message["content"] = content_of("".join(contents))
        messages.append({**message, **_strings(turn.fields, hide)})
    return messages, audio


def _strings(value: Any, change: Callable[[str], str]) -> Any:
    """Change all strings in a value, keys of objects only if they change as a whole token would."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {change(key): _strings(inner, change) for key, inner in value.items()}
    return [_strings(inner, change) for inner in value] if isinstance(value, list | tuple) else value


def _learned(spans: Sequence[tuple[int, int]], turns: Sequence[Turn]) -> Sequence[tuple[int, int]]:
    """Return the spans of the answers that are learned, of the spans of all answers."""
    other = next((turn.role for turn in turns if turn.learned and turn.role != ASSISTANT), None)
    if other is not None:
        raise ConversationError(
            f"A turn of the {other} is learned, which a chat template cannot mark; pass --template unitts."
        )
    answers = [turn for turn in turns if turn.role == ASSISTANT]
    if all(turn.learned for turn in answers):
        return spans
    if len(spans) != len(answers):
        raise ConversationError("The chat template does not mark each answer, so that the learned ones are unknown.")
    return [span for span, turn in zip(spans, answers, strict=True) if turn.learned]


def _pieces(
    text: str, spans: Sequence[tuple[int, int]], finder: TokenFinder, audio: Sequence[AudioPart]
) -> Iterator[Piece]:
    tokens = dict(finder.find(text))
    marks = {start: (end, number) for start, end, number in marks_in(text)}
    borders = sorted(
        {
            0,
            len(text),
            *tokens,
            *tokens.values(),
            *marks,
            *(end for end, _ in marks.values()),
            *(place for span in spans for place in span),
        }
    )
    inside = 0
    for start, end in pairwise(borders):
        if start < inside:
            continue  # a border within a token
        learned = any(first <= start < last for first, last in spans)
        if start in tokens:
            inside = tokens[start]
            yield Piece(
                text[start:inside], any(first < inside and start < last for first, last in spans), is_token=True
            )
        elif start in marks:
            inside, number = marks[start]
            yield Piece(audio[number], learned)
        else:
            content = text[start:end].replace(ESCAPE, "")
            if content:
                yield Piece(content, learned)
