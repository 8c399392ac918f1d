"""Rendered conversations have the ids of `apply_chat_template`, and only answers are learned."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from codectok import InputError
from codectok.exports.chat.conversations import ConversationError, conversation_of_messages
from codectok.exports.chat.documents import ChatBuilder
from codectok.exports.chat.templates import load_conversation_template
from codectok.exports.chat.unitts_dialogs import conversation_of_dialog
from codectok.exports.sequences.documents import Document
from codectok.exports.sequences.text_tokenizer import TextTokenizer, TokenIds
from codectok.tokens.layouts.loading import load_layout
from codectok.tokens.row_index import FoundRow
from codectok.tokens.vocabulary import SPECIAL_TOKENS, Vocabulary
from tests.helpers.chat import FORMS, GEMMA, IM_TOKENS, save_chat_tokenizer
from tests.helpers.exports import BEGIN, CODEBOOK, END, INNER_BEGIN, INNER_END, OFFSET, ROWS, VOCABULARY

ROWS_BY_ID = {row.id: FoundRow(row) for row in ROWS}
FIRST, SECOND = ((OFFSET + row.codes[:, 0]).tolist() for row in ROWS[:2])
Messages = list[dict[str, Any]]
TALK: Messages = [
    {"role": "user", "content": "\n\nhello  world, say"},
    {"role": "assistant", "content": " hello  words \n"},
    {"role": "user", "content": "say of ö <b>  "},
    {"role": "assistant", "content": "\nthe world"},
]
# Behind these, an answer is learned.
HEADERS = {
    "chatml": "<|im_start|>assistant\n",
    "thinking": "<|im_start|>assistant\n",
    "llama3": "<|start_header_id|>assistant<|end_header_id|>\n\n",
    "gemma": "<start_of_turn>model\n",
    "mistral": "[/INST]",
    "generation": "<|im_start|>assistant\n",
    "ended": "<|assistant|>\n",
    "returned": "<|start|>assistant",
    "prompted": "<|im_start|>assistant\n",
    "parts": "<|im_start|>assistant\n",
    "parts-ended": "<|im_start|>assistant\n",
}
ENDS = {
    "llama3": ["<|eot_id|>"] * 2,
    "gemma": ["<end_of_turn>"] * 2,
    "mistral": ["</s>"] * 2,
    "ended": ["<|end|>", "<|end|>\n<|endoftext|>"],
    "returned": ["<|end|>", "<|return|>"],
    "parts-ended": ["<|im_end|>", "<|im_end|>\n<|endoftext|>"],
}
Build = Callable[..., Document]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    folder = tmp_path_factory.mktemp("chat")

    def save(form: str) -> Path:
        return folder / form if (folder / form).exists() else save_chat_tokenizer(folder / form, form)

    return save


def builder_of(
    folder: Path, name: str = "tokenizer", vocabulary: Vocabulary = VOCABULARY, today: date | None = None
) -> ChatBuilder:
    tokenizer = TextTokenizer(folder)
    template = load_conversation_template(name, tokenizer.wrapped, folder, today)
    return ChatBuilder(template, tokenizer, TokenIds.of(vocabulary, tokenizer), 93.75)


def build(builder: ChatBuilder, messages: Messages, **row: Any) -> Document:
    conversation = conversation_of_messages({"messages": messages, **row})
    return builder.build(conversation, ROWS_BY_ID, "x", "d", "s")


def learned_texts(document: Document, tokenizer: Any) -> list[str]:
    assert document.learned is not None
    runs = np.split(np.arange(len(document.ids)), np.flatnonzero(np.diff(document.learned)) + 1)
    return [tokenizer.decode(document.ids[run]) for run in runs if document.learned[run[0]]]


def applied(folder: Path, messages: Messages, **others: Any) -> list[int]:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    if folder.name.startswith("parts"):
        messages = [{**message, "content": [{"type": "text", "text": message["content"]}]} for message in messages]
    return list(tokenizer.apply_chat_template(messages, tokenize=True, **others)["input_ids"])


@pytest.mark.parametrize("form", HEADERS)
def test_ids_equal_those_of_the_tokenizer(form: str, saved: Callable[[str], Path]) -> None:
    folder = saved(form)
    builder, tokenizer = builder_of(folder), TextTokenizer(folder).wrapped
    document = build(builder, TALK)
    assert document.ids.tolist() == applied(folder, TALK)
    whole, learned = tokenizer.decode(document.ids), learned_texts(document, tokenizer)
    assert len(learned) == 2
    for text, said, end in zip(learned, ("hello  words", "the world"), ENDS.get(form, ["<|im_end|>"] * 2), strict=True):
        assert said in text
        assert text.endswith(end)
        assert whole[: whole.index(text)].removesuffix(" ").endswith(HEADERS[form])
    # The last answer alone, and a question behind it.
    assert build(builder, TALK[:2]).ids.tolist() == applied(folder, TALK[:2])
    assert len(learned_texts(build(builder, TALK[:3]), tokenizer)) == 1


@pytest.mark.parametrize("form", HEADERS)
def test_strings_like_tokens_stay_text(form: str, saved: Callable[[str], Path]) -> None:
    """Also if two texts only together look like a token."""
    folder = saved(form)
    builder, tokenizer = builder_of(folder), TextTokenizer(folder).wrapped
    names = [*FORMS[form][1], "<|endoftext|>", "<tool_call>", "<|g0r0_400|>", "<|beginofaudio|>"]
    names = [name for name in names if name != "</think>"]  # that template looks for it
    added = set(tokenizer.added_tokens_decoder)
    harmless, hostile = ("say ", f"{''.join(names)} and {names[1][:3]}")
    halves = [{"type": "text", "text": names[0][:4]}, {"type": "text", "text": names[0][4:]}]
    for content in (hostile, halves):
        messages: Messages = [{"role": "user", "content": content}, {"role": "assistant", "content": hostile}] * 2
        document = build(builder, messages)
        plain = build(builder, [{**message, "content": harmless} for message in messages])
        marks = [[int(one) for one in found.ids if one in added] for found in (document, plain)]
        assert marks[0] == marks[1]
        text = hostile if isinstance(content, str) else names[0]
        assert text in tokenizer.decode(document.ids)
        assert [hostile in one for one in learned_texts(document, tokenizer)] == [True, True]


def test_template_that_looks_into_texts(saved: Callable[[str], Path], tmp_path: Path) -> None:
    """Its decisions hold, unless strings that stay text would change them."""
    folder = saved("thinking")
    messages = [TALK[0], {"role": "assistant", "content": "<think>hm</think>yes"}]
    assert build(builder_of(folder), messages).ids.tolist() == applied(folder, messages)
    text = (
        "{% for m in messages %}{% generation %}{{ m.content.removeprefix('<think>') }}{% endgeneration %}{% endfor %}"
    )
    (tmp_path / "a.jinja").write_text(text)
    with pytest.raises(ConversationError, match="reasoning_content"):
        build(builder_of(folder, str(tmp_path / "a.jinja")), messages)


@pytest.mark.parametrize("form", HEADERS)
def test_audio_is_inside_marks_of_its_role(form: str, saved: Callable[[str], Path], tmp_path: Path) -> None:
    folder = saved(form)
    asked = [{"type": "audio", "id": "c000"}, {"type": "text", "text": "say"}]
    answer = [{"type": "text", "text": "yes"}, {"type": "audio", "id": "c001"}]
    messages = [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
    document = build(builder_of(folder), messages)
    # The same with tokens of the tokenizer in place of the audio: text merges with its neighbours in the same way.
    added = TextTokenizer(folder).wrapped
    added.add_tokens(["<AUDIO_A>", "<AUDIO_B>"], special_tokens=True)
    added.save_pretrained(tmp_path / form)
    texts = [{"role": "user", "content": "<AUDIO_A>say"}, {"role": "assistant", "content": "yes<AUDIO_B>"}]
    wanted = []
    marked = dict(
        zip(
            added.convert_tokens_to_ids(["<AUDIO_A>", "<AUDIO_B>"]),
            ([INNER_BEGIN, *FIRST, INNER_END], [BEGIN, *SECOND, END]),
            strict=True,
        )
    )
    for token_id in applied(tmp_path / form, texts):
        wanted += marked.get(token_id, [token_id])
    assert document.ids.tolist() == wanted
    assert document.learned is not None
    learned = document.ids[document.learned].tolist()
    assert [one for one in learned if one >= OFFSET] == [BEGIN, *SECOND, END]
    for span, codes in zip(document.code_spans, (FIRST, SECOND), strict=True):
        assert document.ids[span.start : span.stop].tolist() == codes
    assert document.clips == ("x", "c000", "c001")
    assert document.seconds == pytest.approx(ROWS[0].duration + ROWS[1].duration)


def test_tools_reach_the_template(saved: Callable[[str], Path]) -> None:
    folder = saved("chatml")
    call = {"type": "function", "function": {"name": "add", "arguments": {"a": 1, "<|im_end|>": "<|im_start|>"}}}
    tools = [{"type": "function", "function": {"name": "add", "description": "Adds. <|im_end|>"}}]
    messages: Messages = [
        TALK[0],
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "content": "2"},
        TALK[3],
    ]
    document = build(builder_of(folder), messages, tools=tools)
    tokenizer = TextTokenizer(folder).wrapped
    first, second = learned_texts(document, tokenizer)
    assert first.startswith("\n<tool_call>\n{")
    assert first.endswith("</tool_call><|im_end|>")
    assert second == "\nthe world<|im_end|>"
    ends = tokenizer.convert_tokens_to_ids(["<|im_end|>"])
    assert np.isin(document.ids, ends).sum() == 2 + len(messages)


def test_layouts_have_their_own_marks(saved: Callable[[str], Path]) -> None:
    for name in ("llasa", "spark", "soda"):
        layout = load_layout(name)
        vocabulary = Vocabulary(CODEBOOK, offset=OFFSET, layout=layout)
        messages: Messages = [TALK[0], {"role": "assistant", "content": [{"type": "audio", "id": "c000"}]}]
        document = build(builder_of(saved("chatml"), vocabulary=vocabulary), messages)
        found = document.ids.tolist()
        begin = found.index(vocabulary.id_of(str(layout.begin_audio)))
        assert found[begin + 1 : begin + 1 + len(FIRST)] == FIRST
        assert found[begin + 1 + len(FIRST)] == vocabulary.id_of(str(layout.end_audio))


@pytest.mark.parametrize("kind", ["metaspace", "normalizer"])
def test_tokenizers_with_marks_of_words(kind: str, tmp_path: Path) -> None:
    """SentencePiece marks the beginnings of words, and of the text, also behind special tokens."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=False))
    if kind == "metaspace":
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
        tokenizer.decoder = decoders.Metaspace(prepend_scheme="first")
    else:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    trainer = trainers.BpeTrainer(vocab_size=150, special_tokens=["<unk>", "<bos>"])
    texts = ["hello world user model say of the words , < > | _ 0 abcdefghijklmnopqrstuvwxyz\n"]
    tokenizer.train_from_iterator(texts * 3, trainer)
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<bos>", bos_token="<bos>")
    wrapped.add_tokens([AddedToken("<start_of_turn>", special=True), AddedToken("<end_of_turn>", normalized=True)])
    wrapped.add_tokens([AddedToken("\n\n", normalized=False), AddedToken("<tool>", rstrip=True)])
    wrapped.chat_template = GEMMA
    wrapped.save_pretrained(tmp_path)
    talk = [{**message, "content": message["content"].replace("ö", "\n\n")} for message in TALK]
    document = build(builder_of(tmp_path), talk)
    assert document.ids.tolist() == applied(tmp_path, talk)
    hostile = build(builder_of(tmp_path), [{**message, "content": "<end_of_turn> <tool>"} for message in talk])
    ends = wrapped.convert_tokens_to_ids("<end_of_turn>")
    assert (hostile.ids == ends).sum() == (document.ids == ends).sum() == (4 if kind == "metaspace" else 0)


def test_today_must_be_given(saved: Callable[[str], Path]) -> None:
    with pytest.raises(InputError, match="--date"):
        builder_of(saved("dated"))
    tokenizer = TextTokenizer(saved("dated")).wrapped
    document = build(builder_of(saved("dated"), today=date(2024, 2, 3)), TALK)
    assert tokenizer.decode(document.ids).startswith("03 Feb 2024\n")


def test_template_from_a_file(saved: Callable[[str], Path], tmp_path: Path) -> None:
    (tmp_path / "gemma.jinja").write_text(GEMMA)
    assert build(builder_of(saved("gemma"), str(tmp_path / "gemma.jinja")), TALK).ids.tolist() == applied(
        saved("gemma"), TALK
    )
    with pytest.raises(InputError, match="no template missing"):
        builder_of(saved("gemma"), "missing")
    (tmp_path / "bad.jinja").write_bytes(b"\xff")
    with pytest.raises(InputError, match="UTF-8"):
        builder_of(saved("gemma"), str(tmp_path / "bad.jinja"))
    for text, message in (("{% if %}", "refuses"), ("{{ raise_exception('No.') }}", "No"), ("hi", "differently")):
        (tmp_path / "bad.jinja").write_text(text)
        with pytest.raises(InputError, match=message):
            builder_of(saved("gemma"), str(tmp_path / "bad.jinja"))


def test_unusable_conversations_are_refused(saved: Callable[[str], Path], tokenizer: Path) -> None:
    with pytest.raises(InputError, match="no chat template"):
        builder_of(tokenizer)
    gemma = builder_of(saved("gemma"))
    audio = [{"type": "audio", "id": "c000"}]
    with pytest.raises(ConversationError, match="System role not supported"):
        build(gemma, [{"role": "system", "content": "You help."}, *TALK])
    missing = conversation_of_messages({"messages": [{"role": "user", "content": audio}, TALK[1]]})
    with pytest.raises(ConversationError, match="none of the tables"):
        gemma.build(missing, {"c000": FoundRow(None, "The audio c000 is in none of the tables.")}, "x", "d", "s")
    dialog = conversation_of_dialog(
        {"dialog": [{"type": "assistant", "content_list": [{"type": "cot", "content": "a"}]}]}
    )
    with pytest.raises(ConversationError, match="only the template unitts"):
        gemma.build(dialog, {}, "x", "d", "s")


def test_audio_that_a_template_drops_is_refused(saved: Callable[[str], Path], tmp_path: Path) -> None:
    dropping = (
        "{% for m in messages %}{% if not loop.first or messages|length < 5 %}{{ m.content }}{% endif %}{% endfor %}"
    )
    marked = dropping.replace("{{ m.content }}", "{% generation %}{{ m.content }}{% endgeneration %}")
    (tmp_path / "a.jinja").write_text(marked)
    builder = builder_of(saved("chatml"), str(tmp_path / "a.jinja"))
    audio = {"role": "user", "content": [{"type": "audio", "id": "c000"}]}
    build(builder, [audio, TALK[1]])
    with pytest.raises(ConversationError, match="c000 exactly once"):
        build(builder, [audio, *TALK[1:], TALK[0]])


@pytest.fixture(scope="module")
def unitts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer without a chat template, with audio tokens at their ids."""
    folder = tmp_path_factory.mktemp("unitts")
    first = save_chat_tokenizer(folder / "first", "chatml")
    known = TextTokenizer(first).known_tokens()
    fill = [f"<|fill{number}|>" for number in range(OFFSET - len(known))]
    wrapped = PreTrainedTokenizerFast.from_pretrained(first)
    wrapped.add_tokens([*fill, *VOCABULARY.tokens()])
    wrapped.chat_template = None
    wrapped.save_pretrained(folder / "audio")
    return folder / "audio"


def test_unitts_form_equals_its_strings(unitts: Path) -> None:
    """Turns as UniTTS writes them, encoded as one string each; all but the first token of an answer is learned."""
    ids = ROWS[0].codes[:, 0] + OFFSET
    content = [
        {"type": "text", "content": " say:\n"},
        {"type": "audio_text", "content": "as <|audio|>. ", "audio_infos": {"audio_tokens": ids.tolist()}},
    ]
    answer = [
        {"type": "cot", "content": "hello"},
        {"type": "tool_call", "content": "f()"},
        {"type": "text", "content": "words "},
        {"type": "audio", "content": "<|audio|>", "audio_infos": {"id": "c001"}},
    ]
    dialog = [
        {"name": "prompt", "type": "ai_system_prompt", "content_list": [{"type": "text", "content": "You help. "}]},
        {"name": "ann", "type": "user", "content_list": content},
        {"type": "assistant", "content_list": answer},
    ]
    codes = ["".join(VOCABULARY.token(int(one)) for one in codes) for codes in (ids, SECOND)]
    strings = [
        "<|im_start|>system\nYou help.<|im_end|><|endoftext|>",
        "<|im_start|>ann\nsay:\nas <|inter_audio_begin|>" + codes[0] + "<|inter_audio_end|>.<|im_end|><|endoftext|>",
        "<|im_start|>assistant\n<|cot_begin|>hello<|cot_end|>\n<tool_call>f()</tool_call>\nwords "
        "<|beginofaudio|>" + codes[1] + "<|endofaudio|><|im_end|><|endoftext|>",
    ]
    wrapped = PreTrainedTokenizerFast.from_pretrained(unitts)
    turns = [wrapped(text, add_special_tokens=False)["input_ids"] for text in strings]
    document = builder_of(unitts, "unitts").build(conversation_of_dialog({"dialog": dialog}), ROWS_BY_ID, "x", "d", "s")
    assert document.ids.tolist() == [one for turn in turns for one in turn]
    assert document.learned is not None
    start = len(turns[0]) + len(turns[1])
    assert np.flatnonzero(document.learned).tolist() == list(range(start + 1, start + len(turns[2])))


def test_unitts_form_of_messages(unitts: Path) -> None:
    builder = builder_of(unitts, "unitts")
    messages = [
        {"role": "user", "content": [{"type": "audio", "id": "c000"}]},
        {"role": "assistant", "content": [{"type": "audio", "id": "c001"}]},
    ]
    found = build(builder, messages).ids.tolist()
    assert [one for one in found if one >= OFFSET] == [INNER_BEGIN, *FIRST, INNER_END, BEGIN, *SECOND, END]
    refused: list[tuple[Messages, str]] = [
        ([TALK[0], {"role": "tool", "content": "2"}, TALK[1]], "no role tool"),
        ([TALK[0], {**TALK[1], "tool_calls": [{"name": "f"}]}], "tool_calls"),
    ]
    for talk, message in refused:
        with pytest.raises(ConversationError, match=message):
            build(builder, talk)


def test_unitts_marks_without_tokens_are_refused(saved: Callable[[str], Path], tokenizer: Path) -> None:
    with pytest.raises(InputError, match=r"<\|im_start\|>"):
        builder_of(tokenizer, "unitts")
    assert "<|cot_begin|>" in SPECIAL_TOKENS
    # The codec's special tokens have ids also if the tokenizer lacks them.
    row = {"dialog": [{"type": "assistant", "content_list": [{"type": "cot", "content": "a"}]}]}
    document = builder_of(saved("chatml"), "unitts").build(conversation_of_dialog(row), {}, "x", "d", "s")
    assert VOCABULARY.id_of("<|cot_begin|>") in document.ids.tolist()
    foreign = {"type": "audio", "audio_infos": {"audio_tokens": [OFFSET + CODEBOOK]}}
    row = {"dialog": [{"type": "assistant", "content_list": [foreign]}]}
    with pytest.raises(ConversationError, match="not of this vocabulary"):
        builder_of(saved("chatml"), "unitts").build(conversation_of_dialog(row), {}, "x", "d", "s")
    assert IM_TOKENS[0] in TextTokenizer(saved("chatml")).known_tokens()


def test_turns_that_are_not_learned_have_no_labels(saved: Callable[[str], Path]) -> None:
    """`cal_loss` of UniTTS's dialogues decides, also with the template of the tokenizer."""

    def dialog(learned: list[bool], user_learned: bool = False) -> dict[str, Any]:
        questions = [("user", "one", user_learned), ("user", "three", False)]
        answers = [("assistant", "two", learned[0]), ("assistant", "four", learned[1])]
        texts = [turn for pair in zip(questions, answers, strict=True) for turn in pair]
        turns = [
            {"type": role, "cal_loss": loss, "content_list": [{"type": "text", "content": text}]}
            for role, text, loss in texts
        ]
        return {"dialog": turns}

    for form in ("chatml", "generation"):
        builder, tokenizer = builder_of(saved(form)), PreTrainedTokenizerFast.from_pretrained(saved(form))
        document = builder.build(conversation_of_dialog(dialog([False, True])), {}, "x", "d", "s")
        (learned,) = learned_texts(document, tokenizer)
        assert "four" in learned
        assert "two" not in learned
        with pytest.raises(ConversationError, match="A turn of the user is learned"):
            builder.build(conversation_of_dialog(dialog([True, True], True)), {}, "x", "d", "s")


def test_conversation_may_begin_with_the_assistant(saved: Callable[[str], Path]) -> None:
    messages = [{"role": "assistant", "content": "hello"}, {"role": "user", "content": "what?"}]
    builder, tokenizer = builder_of(saved("chatml")), PreTrainedTokenizerFast.from_pretrained(saved("chatml"))
    document = build(builder, messages)
    assert document.ids.tolist() == applied(saved("chatml"), messages)
    (learned,) = learned_texts(document, tokenizer)
    assert learned.startswith("hello")
