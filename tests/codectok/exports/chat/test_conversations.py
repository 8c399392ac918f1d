"""Conversations are read strictly, in all their forms."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from codectok.exports.chat.conversations import (
    AudioPart,
    ConversationError,
    TextPart,
    TokenPart,
    conversation_of_messages,
)
from codectok.exports.chat.reading import ConversationRow, conversation_rows
from codectok.exports.chat.unitts_dialogs import conversation_of_dialog
from codectok.sources.source import Source

ANSWER = {"role": "assistant", "content": "yes"}


def parts_of(*messages: dict[str, Any], **row: Any) -> list[tuple[Any, ...]]:
    return [turn.parts for turn in conversation_of_messages({"messages": list(messages), **row}).turns]


def test_audio_has_several_forms() -> None:
    wanted = (TextPart("say "), AudioPart("a"), TextPart(" and "), AudioPart("7"))
    parts = [
        {"type": "text", "text": "say "},
        {"type": "audio", "id": "a"},
        {"type": "text", "text": " and "},
        {"type": "audio", "audio_id": 7},
    ]
    spoken = {"role": "user", "content": "say <audio> and <audio>"}
    bare = {"role": "user", "content": ["say ", {"type": "audio"}, " and ", {"type": "audio"}]}
    for message, row in (
        ({"role": "user", "content": parts}, {}),
        ({**spoken, "audio_ids": ["a", "7"]}, {}),
        (spoken, {"audios": ["a", 7]}),
        (bare, {"audio_ids": ["a", "7"]}),
    ):
        assert parts_of(message, ANSWER, **row)[0] == wanted


def test_placeholder_without_list_is_text() -> None:
    assert parts_of({"role": "user", "content": "say <audio>"}, ANSWER)[0] == (TextPart("say <audio>"),)


def test_empty_list_of_a_message_leaves_that_of_the_conversation() -> None:
    messages = [{"role": "user", "content": "<audio>", "audio_ids": []}, {**ANSWER, "audio_ids": []}]
    assert conversation_of_messages({"messages": messages, "audio_ids": ["a"]}).references == ["a"]


def test_further_fields_reach_the_template() -> None:
    call = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": {}}}]}
    found = conversation_of_messages({"messages": [ANSWER, call], "tools": json.dumps([{"name": "f"}])})
    assert found.turns[1].fields["tool_calls"] == call["tool_calls"]
    assert found.tools == ({"name": "f"},)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"messages": []}, "empty"),
        ({"messages": "no"}, "not valid JSON"),
        ({"messages": {}}, "not a list"),
        ({"messages": [{"role": "user", "content": "hi"}]}, "no turn of the assistant"),
        ({"messages": [{"role": "bot", "content": "hi"}, ANSWER]}, "Message 1 has the role 'bot'"),
        ({"messages": [{"content": "hi"}, ANSWER]}, "role None"),
        ({"messages": [{"role": ["user"], "content": "hi"}, ANSWER]}, "role"),
        ({"messages": [ANSWER, {"role": "user", "content": ""}]}, "Message 2 is empty"),
        ({"messages": [{"role": "user", "content": 3}, ANSWER]}, "neither text nor a list"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}, ANSWER]}, "type 'image'"),
        ({"messages": [{"role": "user", "content": [7]}, ANSWER]}, "type None"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}, ANSWER]}, "not text"),
        ({"messages": [{"role": "user", "content": [{"type": "audio"}]}, ANSWER]}, "without 'id' or 'audio_id'"),
        ({"messages": [{"role": "user", "content": [{"type": "audio", "id": {}}]}, ANSWER]}, "usable id"),
        ({"messages": [{"role": "user", "content": "<audio>", "audio_ids": []}, ANSWER]}, "more audio than ids"),
        ({"messages": [{"role": "user", "content": "hi", "audio_ids": ["a"]}, ANSWER]}, "fewer <audio>"),
        ({"messages": [{"role": "user", "content": "hi"}, ANSWER], "audios": ["a"]}, "fewer <audio>"),
        ({"messages": [ANSWER], "audios": ["a"], "audio_ids": ["a"]}, "one list of ids"),
        ({"messages": [{"role": "user", "content": "a\ufdd0"}, ANSWER]}, r"U\+FDD0"),
        ({"messages": [{"role": "user", "content": "a\ud800"}, ANSWER]}, r"U\+D800"),
        ({"messages": [{**ANSWER, "tool_calls": [{"name": "\ufdd1"}]}]}, r"U\+FDD1"),
        ({"messages": [ANSWER], "tools": [{"\ufdd2": 1}]}, r"U\+FDD2"),
        ({"messages": [ANSWER], "tools": 7}, "not a list"),
    ],
)
def test_unknown_forms_are_refused(row: dict[str, Any], message: str) -> None:
    with pytest.raises(ConversationError, match=message):
        conversation_of_messages(row)


def source_of(path: Path) -> Source:
    kind = "lines" if path.suffix == ".jsonl" else "parquet"
    return Source("c", str(path.parent), path.name, kind, size=path.stat().st_size)  # type: ignore[arg-type]


def test_rows_without_a_conversation_have_a_reason(tmp_path: Path) -> None:
    lines = ["{", "[1]", "{}", json.dumps({"id": "x", "messages": []}), json.dumps({"id": 5, "messages": [ANSWER]})]
    deep = '{"messages": ' + "[" * 100_000 + "]" * 100_000 + "}"
    (tmp_path / "c.jsonl").write_text("\n".join([*lines, "", deep, '{"messages": [{"role": "user"}]}']) + "\n")
    found = list(conversation_rows(source_of(tmp_path / "c.jsonl")))
    assert [row.reason for row in found if row.conversation is None] == [
        "unreadable", "unreadable", "filtered", "filtered", "unreadable", "filtered",
    ]  # fmt: skip
    assert [row.id for row in found[:5]] == ["c.jsonl:0", "c.jsonl:2", "c.jsonl:6", "x", "5"]
    assert all(row.problem.endswith(".") for row in found if row.conversation is None)


def test_parquet_holds_structures_or_json(tmp_path: Path) -> None:
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "hi"}, {"type": "audio", "id": "a"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "yes"}]},
    ]
    rows = [{"id": "x", "messages": messages}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    pq.write_table(pa.Table.from_pylist([{"id": "x", "messages": json.dumps(messages)}]), tmp_path / "b.parquet")
    (tmp_path / "c.jsonl").write_text(json.dumps(rows[0]) + "\n")
    found: list[list[ConversationRow]] = [
        list(conversation_rows(source_of(tmp_path / name))) for name in ("a.parquet", "b.parquet", "c.jsonl")
    ]
    assert found[0] == found[1] == found[2]
    assert found[0][0].conversation is not None
    assert found[0][0].conversation.references == ["a"]


def dialog(*contents: dict[str, Any], kind: str = "assistant", **turn: Any) -> dict[str, Any]:
    return {"dialog": [{"type": kind, "content_list": list(contents), **turn}]}


def test_dialog_of_unitts_is_read() -> None:
    contents = (
        {"type": "text", "content": "  text\n"},
        {"type": "audio", "content": "<|audio|>", "audio_infos": {"audio_tokens": [400, 401]}},
        {"type": "audio_text", "content": "as <|audio|>.", "audio_infos": {"id": "a"}},
        {"type": "cot", "content": "hm"},
        {"type": "tool_call", "content": "f() "},
    )
    (turn,) = conversation_of_dialog(dialog(*contents, name="ann")).turns
    assert turn.parts == (
        TextPart("text\n"),
        AudioPart(ids=(400, 401), marks="outer"),
        *(TextPart("as "), AudioPart("a", marks="inner"), TextPart(".")),
        *(TokenPart("<|cot_begin|>"), TextPart("hm"), TokenPart("<|cot_end|>"), TextPart("\n")),
        *(TokenPart("<tool_call>"), TextPart("f()"), TokenPart("</tool_call>"), TextPart("\n")),
    )
    assert (turn.role, turn.name, turn.learned) == ("assistant", "ann", True)
    system = conversation_of_dialog(dialog(contents[0], kind="ai_system_prompt", name="x", cal_loss=True)).turns[0]
    assert (system.role, system.name, system.learned) == ("system", None, True)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"dialog": []}, "empty"),
        ({"dialog": "{"}, "not valid JSON"),
        (dialog({"type": "text", "content": "hi"}, kind="user"), "no turn of the assistant"),
        (dialog({"type": "text", "content": "hi"}, kind="bot"), "type 'bot'"),
        (dialog(), "Turn 1 is empty"),
        (dialog({"type": "image", "content": ""}), "type 'image'"),
        (dialog({"type": [], "content": ""}), "type"),
        (dialog({"type": "text", "content": {}}), "not text"),
        (dialog({"type": "audio_text", "content": "no", "audio_infos": {"id": "a"}}), r"no <\|audio\|>"),
        (dialog({"type": "audio", "content": ""}), "without 'audio_tokens' or an id"),
        (dialog({"type": "audio", "audio_infos": {"audio_tokens": [1.5]}}), "not a list of ids"),
        (dialog({"type": "audio", "audio_infos": []}), "not an object"),
        (dialog({"type": "text", "content": "hi"}, cal_loss=2), "neither true nor false"),
    ],
)
def test_unknown_dialogs_are_refused(row: dict[str, Any], message: str) -> None:
    with pytest.raises(ConversationError, match=message):
        conversation_of_dialog(row)


TALKS: list[dict[str, Any]] = [
    {
        "messages": [
            {"role": "user", "content": [{"type": "audio", "id": "a"}, {"type": "text", "text": "hi"}]},
            {"role": "assistant", "content": "yes", "tool_calls": [{"function": {"name": "f", "arguments": {}}}]},
        ],
        "tools": [{"type": "function", "function": {"name": "f"}}],
    },
    {"messages": [{"role": "user", "content": "a <audio>", "audio_ids": ["a"]}, ANSWER]},
    dialog(
        {"type": "cot", "content": "hm"},
        {"type": "audio_text", "content": "<|audio|>", "audio_infos": {"audio_tokens": [400]}},
    ),
]
OTHERS: list[Any] = [
    None,
    1,
    1.5,
    True,
    "",
    "x",
    [],
    {},
    [[]],
    {"a": None},
    -1,
    "\ud800",
    2**70,
    [None],
    {"type": "text"},
]


def mutated(value: Any, choice: random.Random) -> Any:
    """Replace, drop and repeat some parts of a JSON value."""
    if choice.random() < 0.08:
        return choice.choice(OTHERS)
    if isinstance(value, dict):
        return {key: mutated(inner, choice) for key, inner in value.items() if choice.random() > 0.04}
    if isinstance(value, list):
        return [mutated(inner, choice) for inner in value for _ in range(choice.choice([1, 1, 1, 1, 2, 0]))]
    return value


def test_mutated_conversations_are_read_or_refused(tmp_path: Path) -> None:
    choice = random.Random(0)
    lines = [json.dumps(mutated(choice.choice(TALKS), choice)) for _ in range(1000)]
    (tmp_path / "c.jsonl").write_text("".join(f"{line}\n" for line in lines))
    found = list(conversation_rows(source_of(tmp_path / "c.jsonl")))
    assert len(found) == len(lines)
    assert {row.reason for row in found if row.conversation is None} == {"unreadable", "filtered"}
    assert any(row.conversation is not None for row in found)
