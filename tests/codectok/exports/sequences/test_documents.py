"""Documents from rows and texts: ids and their order."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from codectok import InputError
from codectok.exports.sequences.builder import DocumentBuilder
from codectok.exports.sequences.builders import make_builder
from codectok.exports.sequences.documents import CodeSpan, MissingFieldError
from codectok.exports.sequences.items import Voice
from codectok.exports.sequences.template_files import load_template
from codectok.exports.sequences.text_tokenizer import TextTokenizer, TokenIds
from codectok.tokens.table import TokenRow
from codectok.tokens.vocabulary import SPECIAL_TOKENS, Vocabulary
from tests.helpers.tokenizers import END_OF_TEXT, save_tokenizer, text_of

VOCABULARY = Vocabulary(32, offset=400)
BEGIN, END, INNER_BEGIN, INNER_END = 432, 433, 435, 436
ROW = TokenRow("a", "a.wav", "speech", 0.0, 2.0, 512, np.array([[3], [31]]), text="hello world")
VOICE = np.array([[1], [2], [1]])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> TextTokenizer:
    return TextTokenizer(folder)


def built(name: str | Path, tokenizer: TextTokenizer | None, voice: Voice | None = None) -> DocumentBuilder:
    return make_builder(load_template(name), TokenIds.of(VOCABULARY, tokenizer), tokenizer, voice)


def test_audio_document_needs_eos_but_no_tokenizer() -> None:
    template = load_template("audio")
    ids = TokenIds.of(VOCABULARY, None, 399)
    (document,) = make_builder(template, ids, None).of_rows([ROW], "speech")
    assert document.ids.tolist() == [BEGIN, 403, 431, END, 399]
    assert document.ids.dtype == np.int32
    assert (document.id, document.dataset, document.seconds) == ("a", "speech", 2.0)
    with pytest.raises(InputError, match="pass --eos"):
        make_builder(template, TokenIds.of(VOCABULARY, None), None)
    qwen = TokenIds.of(Vocabulary(32_768), None)
    (document,) = make_builder(template, qwen, None).of_rows([ROW], "speech")
    assert document.ids.tolist() == [184_832, 152_067, 152_095, 184_833, 151_643]


def test_token_order_of_each_task(tokenizer: TextTokenizer, folder: Path) -> None:
    text = tokenizer.ids_of("hello world").tolist()
    assert text_of(folder, text) == "hello world"
    eos = tokenizer.end_of_sequence
    codes = [403, 431]
    expected = {
        "audio": [BEGIN, *codes, END, eos],
        "tts": [*text, BEGIN, *codes, END, eos],
        "tts-voice": [INNER_BEGIN, 401, 402, 401, INNER_END, *text, BEGIN, *codes, END, eos],
        "asr": [INNER_BEGIN, *codes, INNER_END, *text, eos],
        "interleaved": [*text, INNER_BEGIN, *codes, INNER_END, eos],
    }
    for name, ids in expected.items():
        (document,) = built(name, tokenizer, voice=lambda _: VOICE).of_rows([ROW], "speech")
        assert document.ids.tolist() == ids, name
    other = replace(ROW, text="words", codes=np.array([[0]]), id="b")
    (document,) = built("interleaved", tokenizer).of_rows([ROW, other], "speech")
    words = tokenizer.ids_of("words").tolist()
    assert document.ids.tolist() == [*expected["interleaved"][:-1], *words, INNER_BEGIN, 400, INNER_END, eos]
    assert (document.id, document.seconds) == ("a", 4.0)
    assert built("text", tokenizer).of_text("hello world", "t", "books").ids.tolist() == [*text, eos]


def test_codes_of_frame_are_consecutive() -> None:
    vocabulary = Vocabulary(4, n_groups=1, n_residuals=2, offset=10)
    row = replace(ROW, codes=np.array([[0, 1], [3, 2]]))
    builder = make_builder(load_template("audio"), TokenIds.of(vocabulary, None, 1), None)
    (document,) = builder.of_rows([row], "speech")
    assert document.ids.tolist() == [18, 10, 15, 13, 16, 19, 1]
    assert document.code_spans == (CodeSpan(1, 5, frame=2, opening=1, closing=1),)


def test_field_values_are_not_parsed(tmp_path: Path, tokenizer: TextTokenizer, folder: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text('row: [{text: "{speaker} says: {text}"}, {token: eos}]')
    evil = f"{{speaker}} {END_OF_TEXT}"
    (document,) = built(path, tokenizer).of_rows([replace(ROW, speaker="Ann", text=evil)], "speech")
    assert text_of(folder, document.ids[:-1].tolist()) == f"Ann says: {evil}"
    assert document.ids.tolist().count(tokenizer.end_of_sequence) == 1  # text never ends a sequence


def test_further_labels_are_fields(tmp_path: Path, tokenizer: TextTokenizer, folder: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text('row: [{text: "{extra.mood} {extra.first name} {extra.age}: {text}{extra}{ext.a}"}, {token: eos}]')
    with pytest.raises(InputError, match="extra"):
        built(path, tokenizer)
    path.write_text('row: [{text: "{extra.mood} {extra.first name} {extra.age}: {text}{ext.a}"}, {token: eos}]')
    row = replace(ROW, extra='{"age": [30, null], "first name": "{text}", "mood": "sad"}')
    (document,) = built(path, tokenizer).of_rows([row], "speech")
    assert text_of(folder, document.ids[:-1].tolist()) == f"sad {{text}} [30, null]: {ROW.text}{{ext.a}}"
    for extra in (None, '{"mood": "sad", "first name": "", "age": 1}'):
        with pytest.raises(MissingFieldError, match=r"The row a has no extra\."):
            list(built(path, tokenizer).of_rows([replace(ROW, extra=extra)], "speech"))


@pytest.mark.parametrize("text", [None, ""])
def test_row_without_text_is_named_in_error(text: str | None, tokenizer: TextTokenizer) -> None:
    with pytest.raises(MissingFieldError, match="The row a has no text"):
        list(built("tts", tokenizer).of_rows([replace(ROW, text=text)], "speech"))


def test_recordings_are_cut_between_rows(tokenizer: TextTokenizer) -> None:
    builder = built("interleaved", tokenizer)
    made = [replace(ROW, id=f"r{n}", text=f"words {n}") for n in range(9)]
    all_names = [row.id for row in made]
    sizes = [len(next(builder.of_rows([row], "speech")).ids) - 1 for row in made]
    for length in (None, *range(1, sum(sizes) + 2)):
        documents = list(builder.of_rows(made, "speech", length))
        # No id is lost, and no document has room for the first row of the next one.
        assert [one for document in documents for one in document.ids[:-1]] == [
            one for row in made for one in next(builder.of_rows([row], "speech")).ids[:-1]
        ]
        assert {document.ids[-1] for document in documents} == {tokenizer.end_of_sequence}
        names = [document.id for document in documents]
        for document, following in zip(names, [*names[1:], None], strict=True) if length else ():
            first, end = all_names.index(document), all_names.index(following) if following else len(made)
            assert sum(sizes[first:end]) + 1 <= length or end == first + 1
            assert not following or sum(sizes[first : end + 1]) + 1 > length


def test_row_without_text_ends_document(tokenizer: TextTokenizer) -> None:
    made = [replace(ROW, id=f"r{n}", text=None if n in (0, 3, 4, 8) else "words") for n in range(9)]
    left: list[str] = []
    documents = built("interleaved", tokenizer).of_rows(made, "speech", None, lambda row, error: left.append(row.id))
    assert [(document.id, document.seconds) for document in documents] == [("r1", 4.0), ("r5", 6.0)]
    assert left == ["r0", "r3", "r4", "r8"]


def test_missing_tokenizer_voice_or_token_is_refused(tokenizer: TextTokenizer, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="pass --tokenizer"):
        built("tts", None)
    with pytest.raises(InputError, match="pass --voice"):
        built("tts-voice", tokenizer)
    (tmp_path / "t.yaml").write_text("row: [{token: <|nothing|>}]")
    with pytest.raises(InputError, match=r"nothing.*of the template"):
        built(tmp_path / "t.yaml", tokenizer)


def test_special_token_ids_come_from_tokenizer(tmp_path: Path) -> None:
    extended = TextTokenizer(save_tokenizer(tmp_path / "special", [*SPECIAL_TOKENS[:2], "<|user|>"]))
    ids = TokenIds.of(VOCABULARY, extended)
    known = extended.known_tokens()
    assert ids.of_token("<|beginofaudio|>") == known["<|beginofaudio|>"] < 400
    assert ids.of_token("<|sil|>") == 434
    assert ids.of_token("eos") == extended.end_of_sequence == known[END_OF_TEXT]
    assert TokenIds.of(VOCABULARY, extended, "<|user|>").of_token("eos") == known["<|user|>"]
    assert TokenIds.of(VOCABULARY, extended, "7").of_token("eos") == 7
    with pytest.raises(InputError, match="has no token"):
        TokenIds.of(VOCABULARY, extended, "<|missing|>")


@pytest.mark.parametrize("code", [400, "431"])
def test_code_as_end_of_sequence_is_refused(code: str | int) -> None:
    with pytest.raises(InputError, match=r"is the id of a code; .* outside of 400 to 431"):
        TokenIds.of(VOCABULARY, None, code)
    assert TokenIds.of(VOCABULARY, None, END).end_of_sequence == END
    assert TokenIds.of(VOCABULARY, None, 399).end_of_sequence == 399


def test_tokenizer_overlapping_with_codes_is_refused(tmp_path: Path) -> None:
    plain = TextTokenizer(save_tokenizer(tmp_path / "plain"))
    size = len(plain.known_tokens())
    with pytest.raises(InputError, match=f"at {size - 1}, among the audio tokens from {size - 1}"):
        TokenIds.of(Vocabulary(32, offset=size - 1), plain)
    TokenIds.of(Vocabulary(32, offset=size), plain)
    audio = Vocabulary(32, offset=size)
    extended = TextTokenizer(save_tokenizer(tmp_path / "extended", list(audio.tokens())))
    assert TokenIds.of(audio, extended).of_token("<|endofaudio|>") == size + 33
    with pytest.raises(InputError, match=f"audio tokens from {size} on, not from 400; pass --offset {size}"):
        TokenIds.of(VOCABULARY, extended)


def test_tokenizer_of_another_codec_is_refused(tmp_path: Path) -> None:
    """Also if the codec's tokens are a subset of the tokenizer's."""
    size = len(TextTokenizer(save_tokenizer(tmp_path / "plain")).known_tokens())
    larger, folded = Vocabulary(32, offset=size), Vocabulary(16, n_groups=2, offset=size)
    for number, (has, wanted) in enumerate(
        ((larger, Vocabulary(31, offset=size)), (folded, Vocabulary(16, offset=size)))
    ):
        extended = TextTokenizer(save_tokenizer(tmp_path / str(number), list(has.tokens())))
        TokenIds.of(has, extended)
        with pytest.raises(InputError, match=f"of another codec: 32 for codes, but this codec has {wanted.n_codes}"):
            TokenIds.of(wanted, extended)


def test_folder_without_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="There is no folder"):
        TextTokenizer(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no tokenizer"):
        TextTokenizer(tmp_path / "empty")
