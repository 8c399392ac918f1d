"""Conversations: turns of text and audio, read strictly from messages in the usual forms."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from codectok.errors import InputError

ROLES = ("system", "developer", "user", "assistant", "tool", "function")
ASSISTANT = "assistant"
# Place of an audio in a text; its id is in a list beside it.
PLACEHOLDER = "<audio>"
LIST_KEYS = ("audio_ids", "audios")
ID_KEYS = ("id", "audio_id")
# Codes that stand for spans of rendered text, see `codectok.exports.chat.rendering`.
RESERVED = range(0xFDD0, 0xFDF0)

Marks = Literal["role", "outer", "inner"]
"""Tokens around audio: those of generated audio ("outer"), of a prompt ("inner"), or by the role of the turn."""


class ConversationError(InputError):
    """A conversation cannot be used."""


@dataclass(frozen=True)
class TextPart:
    """Text of a user, in which strings that look like tokens are text."""

    text: str


@dataclass(frozen=True)
class TokenPart:
    """A token, by its string."""

    token: str


@dataclass(frozen=True)
class AudioPart:
    """Audio: a row of a table, or ids of the language model's vocabulary.

    Attributes:
        reference: id of the row, or `TABLE#ID`; "" if `ids` are given.
        ids: ids of codes; empty if `reference` is given.
        marks: which tokens stand around it.
    """

    reference: str = ""
    ids: tuple[int, ...] = ()
    marks: Marks = "role"


Part = TextPart | TokenPart | AudioPart


@dataclass(frozen=True)
class Turn:
    """A turn of a conversation.

    Attributes:
        role: one of `ROLES`.
        parts: contents, in order.
        fields: further fields of the message for a chat template, such as `tool_calls`.
        name: of the speaker, for templates that write it instead of the role; None without one.
        learned: True if the turn is learned; turns of the assistant by default.
    """

    role: str
    parts: tuple[Part, ...]
    fields: Mapping[str, Any] = field(default_factory=dict)
    name: str | None = None
    learned: bool = False

    def placed(self, audio: AudioPart) -> AudioPart:
        """Return audio of this turn with marks by its role."""
        if audio.marks != "role":
            return audio
        return replace(audio, marks="outer" if self.role == ASSISTANT else "inner")


@dataclass(frozen=True)
class Conversation:
    """A conversation with at least one turn that is learned.

    Attributes:
        turns: in order.
        tools: descriptions of functions for a chat template.
    """

    turns: tuple[Turn, ...]
    tools: tuple[Mapping[str, Any], ...] = ()

    @property
    def audio(self) -> list[AudioPart]:
        """All audio, in order."""
        return [part for turn in self.turns for part in turn.parts if isinstance(part, AudioPart)]

    @property
    def references(self) -> list[str]:
        """References to rows of tables, in order."""
        return [part.reference for part in self.audio if part.reference]


def conversation_of_messages(row: Mapping[str, Any]) -> Conversation:
    """Read a conversation from a row with `messages`, and perhaps `tools` and a list of the ids of its audio.

    Raises:
        ConversationError: a part of it is missing or unknown; the message says which one.
    """
    messages = objects_in(row.get("messages"), "messages")
    ids, ids_key = _ids_in(row, "The conversation")
    supply = iter(ids) if ids_key else None
    turns = []
    for number, message in enumerate(messages, start=1):
        turns.append(_turn(message, f"Message {number}", supply))
    if supply is not None and next(supply, None) is not None:
        raise ConversationError(f"The conversation has {len(ids)} ids in {ids_key!r}, but fewer {PLACEHOLDER}.")
    tools = row.get("tools")
    found = [] if tools in (None, [], "") else objects_in(tools, "tools")
    _check_strings(found, "The list of tools")
    return checked(Conversation(tuple(turns), tuple(found)))


def checked(conversation: Conversation) -> Conversation:
    """Return the conversation; raise `ConversationError` if it is empty, or nothing in it is learned."""
    if not conversation.turns:
        raise ConversationError("The conversation is empty.")
    if not any(turn.learned for turn in conversation.turns):
        if any(turn.role == ASSISTANT for turn in conversation.turns):
            raise ConversationError("No turn of the conversation is learned.")
        raise ConversationError(f"The conversation has no turn of the {ASSISTANT}.")
    return conversation


def objects_in(value: object, name: str) -> list[Mapping[str, Any]]:
    """Return a list of JSON objects, which may be given as a string; raise `ConversationError` for anything else."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise ConversationError(f"Its {name!r} is not valid JSON.") from None
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise ConversationError(f"Its {name!r} is not a list of objects.")
    return [_without_missing(one) for one in value]


def check_text(value: object, where: str) -> str:
    """Return a text; raise `ConversationError` if it is not a string, or has reserved or half characters."""
    if not isinstance(value, str):
        raise ConversationError(f"{where} is not text.")
    for character in set(value):
        if ord(character) in RESERVED or 0xD800 <= ord(character) < 0xE000:
            raise ConversationError(f"{where} has U+{ord(character):04X}, which is not a character.")
    return value


def _turn(message: Mapping[str, Any], where: str, supply: Iterator[str] | None) -> Turn:
    role = message.get("role")
    if role not in ROLES:
        raise ConversationError(f"{where} has the role {role!r}; roles are {', '.join(ROLES)}.")
    own, own_key = _ids_in(message, where)
    # Columns of Parquet give every message a list: an empty one does not hide that of the conversation.
    own_supply = iter(own) if own_key and (own or supply is None) else None
    parts = tuple(_parts(message.get("content"), where, own_supply or supply))
    if own_supply is not None and next(own_supply, None) is not None:
        raise ConversationError(f"{where} has {len(own)} ids in {own_key!r}, but fewer {PLACEHOLDER}.")
    fields = {key: value for key, value in message.items() if key not in ("role", "content", *LIST_KEYS)}
    _check_strings(fields, where)
    if not parts and not any(fields.values()):
        raise ConversationError(f"{where} is empty.")
    return Turn(role, parts, fields, learned=role == ASSISTANT)


def _parts(content: object, where: str, supply: Iterator[str] | None) -> Iterator[Part]:
    if content is None:
        return
    if isinstance(content, str):
        yield from _text_parts(content, where, supply)
        return
    if not isinstance(content, list):
        raise ConversationError(f"The content of {where.lower()} is neither text nor a list of parts.")
    for part in content:
        if isinstance(part, str):
            yield from _text_parts(part, where, supply)
            continue
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "text":
            yield from _text_parts(part.get("text"), where, supply)
        elif kind == "audio":
            yield AudioPart(_id_of(part, where) if _has_id(part) else _next_id(supply, where))
        else:
            raise ConversationError(f"{where} has a part of the type {kind!r}; types are text and audio.")


def _text_parts(text: object, where: str, supply: Iterator[str] | None) -> Iterator[Part]:
    """Yield a text; if ids are given in a list, `PLACEHOLDER` in it is audio."""
    checked_text = check_text(text, f"The text of {where.lower()}")
    pieces = [checked_text] if supply is None else checked_text.split(PLACEHOLDER)
    for number, piece in enumerate(pieces):
        if number:
            yield AudioPart(_next_id(supply, where))
        if piece:
            yield TextPart(piece)


def _has_id(part: Mapping[str, Any]) -> bool:
    return any(part.get(key) is not None for key in ID_KEYS)


def _id_of(part: Mapping[str, Any], where: str) -> str:
    return _checked_id(next(part[key] for key in ID_KEYS if part.get(key) is not None), where)


def _checked_id(value: object, where: str) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise ConversationError(f"{where} has an audio without a usable id.")
    return check_text(str(value), f"An id of audio in {where.lower()}")


def _next_id(supply: Iterator[str] | None, where: str) -> str:
    if supply is None:
        raise ConversationError(f"{where} has audio without {' or '.join(map(repr, ID_KEYS))}, and there is no list.")
    found = next(supply, None)
    if found is None:
        raise ConversationError(f"{where} has more audio than ids for it.")
    return found


def _ids_in(values: Mapping[str, Any], where: str) -> tuple[Sequence[str], str]:
    """Return the ids of a list beside a text, and its key; the key is "" without a list."""
    keys = [key for key in LIST_KEYS if values.get(key) is not None]
    if not keys:
        return (), ""
    ids = values[keys[0]]
    if len(keys) > 1 or not isinstance(ids, list):
        raise ConversationError(f"{where} must have one list of ids, in {' or '.join(map(repr, LIST_KEYS))}.")
    return [_checked_id(one, where) for one in ids], keys[0]


def _check_strings(value: object, where: str) -> None:
    if isinstance(value, str):
        check_text(value, f"A field of {where.lower()}")
    elif isinstance(value, dict):
        for key, inner in value.items():
            _check_strings(key, where)
            _check_strings(inner, where)
    elif isinstance(value, list):
        for inner in value:
            _check_strings(inner, where)


def _without_missing(value: Any) -> Any:
    """Drop missing fields of objects: columns of Parquet have each field in every row."""
    if isinstance(value, dict):
        return {str(key): _without_missing(inner) for key, inner in value.items() if inner is not None}
    return [_without_missing(inner) for inner in value] if isinstance(value, list) else value
