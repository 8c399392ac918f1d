"""Dialogues in the form of UniTTS's SFT data: lists of typed contents, with audio by its ids or by a row's id."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from codectok.exports.unitts import AUDIO_MARKER

from .conversations import (
    ASSISTANT,
    ID_KEYS,
    AudioPart,
    Conversation,
    ConversationError,
    Marks,
    Part,
    TextPart,
    TokenPart,
    Turn,
    check_text,
    checked,
    objects_in,
)

DIALOG_KEYS = ("dialog", "dialoge")  # the second one is UniTTS's own
WRAPPED = {"cot": ("<|cot_begin|>", "<|cot_end|>"), "tool": ("<tool_call>", "</tool_call>")}
AUDIO_MARKS: dict[str, Marks] = {"audio": "outer", "audio_text": "inner"}
MAX_ID = 2**31 - 1


def conversation_of_dialog(row: Mapping[str, Any]) -> Conversation:
    """Read a conversation from a row with `dialog`.

    Raises:
        ConversationError: a part of it is missing or unknown; the message says which one.
    """
    key = next(key for key in DIALOG_KEYS if row.get(key) is not None)
    turns = objects_in(row[key], key)
    return checked(Conversation(tuple(_turn(turn, f"Turn {number}") for number, turn in enumerate(turns, start=1))))


def _turn(turn: Mapping[str, Any], where: str) -> Turn:
    kind = turn.get("type", turn.get("role"))
    name = turn.get("name")
    if isinstance(kind, str) and "system" in kind:
        role, name = "system", None
    elif kind in ("user", ASSISTANT):
        role, name = str(kind), None if name is None else check_text(name, f"The name of {where.lower()}")
    else:
        raise ConversationError(f"{where} has the type {kind!r}; types are system, user and {ASSISTANT}.")
    learned = turn.get("cal_loss", role == ASSISTANT)
    if not isinstance(learned, bool):
        raise ConversationError(f"{where} has a 'cal_loss' that is neither true nor false.")
    contents = objects_in(turn.get("content_list"), "content_list")
    parts: list[Part] = []
    for number, content in enumerate(contents):
        text = check_text(content.get("content", ""), f"A content of {where.lower()}")
        text = text.lstrip() if number == 0 else text
        text = text.rstrip() if number == len(contents) - 1 else text
        parts += _parts(content, text, where)
    if not parts:
        raise ConversationError(f"{where} is empty.")
    return Turn(role, tuple(parts), name=name, learned=learned)


def _parts(content: Mapping[str, Any], text: str, where: str) -> Iterator[Part]:
    kind = content.get("type")
    if kind == "text":
        yield from _text(text)
    elif isinstance(kind, str) and kind in AUDIO_MARKS:
        audio = _audio(content, AUDIO_MARKS[kind], where)
        if AUDIO_MARKER not in text and (kind != "audio" or text):
            raise ConversationError(f"{where} has audio, but no {AUDIO_MARKER} in the text beside it.")
        for number, piece in enumerate((text or AUDIO_MARKER).split(AUDIO_MARKER)):
            if number:
                yield audio
            yield from _text(piece)
    elif kind == "cot" or (isinstance(kind, str) and "tool" in kind):
        begin, end = WRAPPED["cot" if kind == "cot" else "tool"]
        yield TokenPart(begin)
        yield from _text(text)
        yield TokenPart(end)
        yield TextPart("\n")
    else:
        raise ConversationError(
            f"{where} has a content of the type {kind!r}; types are text, audio, audio_text, cot and tool."
        )


def _text(text: str) -> Iterator[TextPart]:
    if text:
        yield TextPart(text)


def _audio(content: Mapping[str, Any], marks: Marks, where: str) -> AudioPart:
    infos = content.get("audio_infos", {})
    if not isinstance(infos, dict):
        raise ConversationError(f"The 'audio_infos' of {where.lower()} are not an object.")
    ids = infos.get("audio_tokens")
    if ids:
        whole = isinstance(ids, list) and all(type(one) is int and 0 <= one <= MAX_ID for one in ids)
        if not whole:
            raise ConversationError(f"The 'audio_tokens' of {where.lower()} are not a list of ids.")
        return AudioPart(ids=tuple(ids), marks=marks)
    for values in (infos, content):
        for key in ID_KEYS:
            if isinstance(values.get(key), str | int) and values[key] != "":
                return AudioPart(check_text(str(values[key]), f"An id of audio in {where.lower()}"), marks=marks)
    raise ConversationError(f"{where} has an audio without 'audio_tokens' or an id.")
