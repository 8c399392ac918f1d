"""Documents whose rows alternate between audio and text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from codectok import InputError
from codectok.exports.choices import Loss
from codectok.exports.sequences.documents import Document
from codectok.exports.sequences.patterns import PatternBuilder
from codectok.exports.sequences.template_files import load_template
from codectok.exports.sequences.templates import CodesItem, PatternTemplate, Template, TextItem, TokenItem
from codectok.exports.sequences.text_tokenizer import TextTokenizer, TokenIds
from codectok.tokens.table import TokenRow
from codectok.tokens.vocabulary import Vocabulary
from tests.helpers.tokenizers import save_tokenizer

OFFSET, EOS, SWITCH = 400, 1, 2
INNER_BEGIN, INNER_END = 435, 436
VOCABULARY = Vocabulary(32, offset=OFFSET)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> TextTokenizer:
    return TextTokenizer(save_tokenizer(tmp_path_factory.mktemp("tokenizer"), ["<|switch|>"]))


def row(n: int, with_text: bool = True) -> TokenRow:
    codes = np.full((2 + n % 3, 1), n % 32)
    return TokenRow(f"r{n}", "a.wav", "speech", 2.0 * n, 2.0, 512, codes, text=f"words {n}" if with_text else None)


ROWS = [row(n) for n in range(40)]


def builder(
    tokenizer: TextTokenizer, task: str, seed: int = 0, switch: str | None = None, loss: Loss | None = None
) -> PatternBuilder:
    template = load_template(task)
    assert isinstance(template, PatternTemplate)
    if switch is not None:
        template = template.with_switch(switch)
    return PatternBuilder(template, TokenIds.of(VOCABULARY, tokenizer, EOS), tokenizer, loss, seed)


def built(tokenizer: TextTokenizer, task: str, rows: Sequence[TokenRow], length: int | None = None) -> list[Document]:
    return list(builder(tokenizer, task).of_rows(rows, "speech", length))


def audio(n: int) -> list[int]:
    return [INNER_BEGIN, *(ROWS[n].codes[:, 0] + OFFSET).tolist(), INNER_END]


def text(tokenizer: TextTokenizer, n: int, before: str = "") -> list[int]:
    return tokenizer.ids_of(f"{before}words {n}").tolist()


def test_each_letter_chooses_audio_or_text(tokenizer: TextTokenizer) -> None:
    documents = built(tokenizer, "ATAT", ROWS[:9])
    assert [document.pattern for document in documents] == ["ATAT", "ATAT", "alone"]
    a, t = audio, lambda n: text(tokenizer, n)
    assert documents[0].ids.tolist() == [*a(0), *t(1), *a(2), *t(3), EOS]
    assert documents[1].ids.tolist() == [*a(4), *t(5), *a(6), *t(7), EOS]
    assert documents[2].ids.tolist() == [*a(8), *t(8), EOS]  # the transcript
    assert [document.clips for document in documents] == [("r0", "r1", "r2", "r3"), ("r4", "r5", "r6", "r7"), ("r8",)]
    assert [document.seconds for document in documents] == [4.0, 4.0, 2.0]
    (document,) = built(tokenizer, "TATA", ROWS[:4])
    assert document.ids.tolist() == [*t(0), *a(1), *t(2), *a(3), EOS]


@pytest.mark.parametrize(("n_rows", "patterns"), [(5, ["ATAT", "alone"]), (6, ["ATAT", "AT"]), (7, ["ATAT", "ATA"])])
def test_end_of_a_recording_takes_the_beginning_of_a_pattern(
    n_rows: int, patterns: list[str], tokenizer: TextTokenizer
) -> None:
    assert [document.pattern for document in built(tokenizer, "ATAT", ROWS[:n_rows])] == patterns


def test_patterns_of_one_modality(tokenizer: TextTokenizer) -> None:
    """Texts that follow each other are separated, and a pattern of one letter leaves no row alone."""
    (document,) = built(tokenizer, "AATT", ROWS[:4])
    texts = [*text(tokenizer, 2), *text(tokenizer, 3, " ")]
    assert document.ids.tolist() == [*audio(0), *audio(1), *texts, EOS]
    assert [document.ids.tolist() for document in built(tokenizer, "A", ROWS[:2])] == [
        [*audio(0), EOS],
        [*audio(1), EOS],
    ]


def test_switch_stands_where_the_modality_changes(tokenizer: TextTokenizer) -> None:
    switch = tokenizer.known_tokens()["<|switch|>"]
    (document,) = builder(tokenizer, "AATTA", switch="<|switch|>").of_rows(ROWS[:5], "speech")
    texts = [*text(tokenizer, 2), *text(tokenizer, 3, " ")]
    assert document.ids.tolist() == [*audio(0), *audio(1), switch, *texts, switch, *audio(4), EOS]
    (alone,) = builder(tokenizer, "AATTA", switch="<|switch|>").of_rows(ROWS[:1], "speech")
    assert alone.ids.tolist() == [*audio(0), switch, *text(tokenizer, 0), EOS]


def test_switch_belongs_to_what_stands_before_it() -> None:
    """So that it is no part of an answer."""
    text, codes, mark, switch = (
        TextItem(text="{text}"),
        CodesItem(codes="row"),
        TokenItem(token="m"),
        TokenItem(token="s"),
    )
    template = Template(row=(text, mark), answer=(codes,), end=(mark,)).with_switch("s")
    assert (template.row, template.answer, template.end) == ((text, switch, mark), (codes,), (mark,))
    template = Template(begin=(mark,), row=(codes, mark), answer=(text, codes)).with_switch("s")
    assert (template.begin, template.row, template.answer) == ((mark,), (codes, mark, switch), (text, switch, codes))
    own = load_template("AT").model_copy(update={"alone": Template(row=(codes, switch, text))})
    assert isinstance(own, PatternTemplate)
    assert own.with_switch("s").alone == own.alone


@pytest.mark.parametrize("task", ["AT", "ATAT:2,TATA", "AAT:1,T:1,TTA:3"])
@pytest.mark.parametrize("length", [None, 10, 25, 60])
def test_every_row_is_in_one_document(task: str, length: int | None, tokenizer: TextTokenizer) -> None:
    for n_rows in range(len(ROWS)):
        documents = built(tokenizer, task, ROWS[:n_rows], length)
        assert [clip for document in documents for clip in document.clips] == [row.id for row in ROWS[:n_rows]]
        for document in documents:
            assert document.pattern == "alone" or len(document.clips) == len(document.pattern or "")
            assert length is None or len(document.ids) <= length or len(document.clips) == 1


def test_row_without_text_begins_the_next_document_as_audio(tokenizer: TextTokenizer) -> None:
    rows = [row(n, with_text=n not in (0, 3)) for n in range(8)]
    left: list[str] = []
    documents = list(builder(tokenizer, "ATAT").of_rows(rows, "speech", None, lambda row, error: left.append(row.id)))
    assert [(document.pattern, document.clips) for document in documents] == [
        ("ATA", ("r0", "r1", "r2")),
        ("ATAT", ("r3", "r4", "r5", "r6")),
        ("alone", ("r7",)),
    ]
    assert not left
    documents = list(builder(tokenizer, "TATA").of_rows(rows, "speech", None, lambda row, error: left.append(row.id)))
    assert [document.pattern for document in documents] == ["TA", "TATA"]
    assert left == ["r0", "r3"]


def test_rows_without_text_are_audio_alone(tokenizer: TextTokenizer) -> None:
    documents = built(tokenizer, "ATAT", [row(n, with_text=False) for n in range(3)])
    assert [(document.pattern, document.ids.tolist()) for document in documents] == [
        ("A", [*audio(n), EOS]) for n in range(3)
    ]


def test_row_whose_transcript_is_too_long_is_audio_alone(tokenizer: TextTokenizer) -> None:
    (document,) = built(tokenizer, "AT", ROWS[:1], length=len(audio(0)) + 1)
    assert (document.pattern, document.ids.tolist()) == ("A", [*audio(0), EOS])
    (document,) = built(tokenizer, "TA", ROWS[:1], length=len(text(tokenizer, 0)) + 1)
    assert (document.pattern, document.ids.tolist()) == ("T", [*text(tokenizer, 0), EOS])


def test_pattern_without_audio_cannot_teach_audio(tokenizer: TextTokenizer) -> None:
    with pytest.raises(InputError, match="the pattern TT has none"):
        builder(tokenizer, "AT,TT", loss=Loss.AUDIO)


def test_seed_and_first_row_decide_the_pattern(tokenizer: TextTokenizer) -> None:
    many = [replace(ROWS[0], id=f"x{n}") for n in range(3000)]
    pairs = [many[n : n + 2] for n in range(0, len(many), 2)]

    def drawn(seed: int, order: Sequence[list[TokenRow]]) -> dict[str, str | None]:
        made = builder(tokenizer, "AT:2,TA:1", seed)
        return {one.id: one.pattern for pair in order for one in made.of_rows(pair, "speech")}

    found = drawn(0, pairs)
    assert found == drawn(0, pairs[::-1])
    assert found != drawn(1, pairs)
    counts = Counter(found.values())
    assert counts.keys() == {"AT", "TA"}
    assert abs(counts["AT"] / len(found) - 2 / 3) < 0.04  # three standard deviations


def test_end_is_learned_where_it_closes_audio(tokenizer: TextTokenizer, tmp_path: Path) -> None:
    """Whatever the last row of the pattern is: documents may end before it."""
    items = "audio: [{codes: row}]\ntext: [{text: '{text}'}]\nend: [{token: eos}]"
    (tmp_path / "open.yaml").write_text(f"patterns: {{TAT: 1}}\n{items}")
    made = builder(tokenizer, str(tmp_path / "open.yaml"), loss=Loss.AUDIO)
    for rows, expected in ((ROWS[:2], [*audio(1)[1:-1], EOS]), (ROWS[:3], audio(1)[1:-1])):
        (document,) = made.of_rows(rows, "speech")
        assert document.learned is not None
        assert document.ids[document.learned].tolist() == expected


def test_answer_is_the_last_row(tokenizer: TextTokenizer) -> None:
    (document,) = builder(tokenizer, "ATAT", loss=Loss.ANSWER).of_rows(ROWS[:4], "speech")
    assert document.learned is not None
    assert document.ids[document.learned].tolist() == [*text(tokenizer, 3), EOS]
    (document,) = builder(tokenizer, "TA", loss=Loss.ANSWER).of_rows(ROWS[:2], "speech")
    assert document.learned is not None
    assert document.ids[document.learned].tolist() == [*audio(1)[1:], EOS]
    for loss, expected in ((Loss.AUDIO, audio(0)[1:]), (Loss.ALL, [*audio(0), *text(tokenizer, 1), EOS])):
        (document,) = builder(tokenizer, "AT", loss=loss).of_rows(ROWS[:2], "speech")
        assert document.learned is not None
        assert document.ids[document.learned].tolist() == expected


def test_pattern_file_sets_items(tmp_path: Path, tokenizer: TextTokenizer) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "patterns: {AT: 1}\nbegin: [{token: eos}]\naudio: [{codes: row}]\ntext: [{text: '{text}!'}]\n"
        "to_text: [{token: <|switch|>}]\nend: []\nalone: audio\n"
    )
    documents = list(builder(tokenizer, str(path)).of_rows(ROWS[:3], "speech"))
    switch = tokenizer.known_tokens()["<|switch|>"]
    words = tokenizer.ids_of("words 1!").tolist()
    assert documents[0].ids.tolist() == [EOS, *audio(0)[1:-1], switch, *words]
    assert documents[1].ids.tolist() == [432, *audio(2)[1:-1], 433, EOS]
