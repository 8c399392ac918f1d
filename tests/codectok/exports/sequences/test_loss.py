"""Which ids of a document a language model learns."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from codectok import InputError
from codectok.exports.choices import Loss, Packing, TooLong
from codectok.exports.sequences.builder import DocumentBuilder
from codectok.exports.sequences.builders import make_builder
from codectok.exports.sequences.documents import Document, loss_mask_of, positions_of
from codectok.exports.sequences.packing import PackingOptions, fit
from codectok.exports.sequences.template_files import load_template
from codectok.exports.sequences.text_tokenizer import TextTokenizer, TokenIds
from codectok.tokens.table import TokenRow
from codectok.tokens.vocabulary import Vocabulary
from tests.helpers.tokenizers import save_tokenizer

VOCABULARY = Vocabulary(32, offset=400)
BEGIN, END, INNER_BEGIN, INNER_END = 432, 433, 435, 436
ROW = TokenRow("a", "a.wav", "speech", 0.0, 2.0, 512, np.array([[3], [31]]), text="hello world")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> TextTokenizer:
    return TextTokenizer(save_tokenizer(tmp_path_factory.mktemp("tokenizer")))


def built(name: str | Path, tokenizer: TextTokenizer | None, loss: Loss | None) -> DocumentBuilder:
    template = load_template(name)
    return make_builder(template, TokenIds.of(VOCABULARY, tokenizer, 1), tokenizer, lambda _: np.array([[7]]), loss)


def learned(document: Document) -> list[int]:
    assert document.learned is not None
    assert len(document.learned) == len(document.ids)
    return document.ids[document.learned].tolist()


def test_loss_selects_all_audio_or_answer(tokenizer: TextTokenizer) -> None:
    text = tokenizer.ids_of("hello world").tolist()
    codes, eos = [403, 431], 1
    answers = {
        "audio": [*codes, END, eos],
        "tts": [*codes, END, eos],
        "tts-voice": [*codes, END, eos],
        "asr": [*text, eos],
        "interleaved": [*codes, INNER_END, eos],
    }
    audio = {name: [*codes, INNER_END if name in ("asr", "interleaved") else END] for name in answers}
    audio["tts-voice"] = [407, INNER_END, *codes, END]
    for name in answers:
        for loss, expected in ((Loss.ANSWER, answers[name]), (Loss.AUDIO, audio[name])):
            (document,) = built(name, tokenizer, loss).of_rows([ROW], "speech")
            assert learned(document) == expected, (name, loss)
        (document,) = built(name, tokenizer, Loss.ALL).of_rows([ROW], "speech")
        (plain,) = built(name, tokenizer, None).of_rows([ROW], "speech")
        assert learned(document) == plain.ids.tolist() == document.ids.tolist()
        assert plain.learned is None
    assert learned(built("text", tokenizer, Loss.ANSWER).of_text("hello world", "t", "books")) == [*text, eos]


def test_every_row_of_a_recording_has_its_answer(tokenizer: TextTokenizer) -> None:
    other = replace(ROW, id="b", text="words", codes=np.array([[0]]))
    (document,) = built("interleaved", tokenizer, Loss.ANSWER).of_rows([ROW, other], "speech")
    assert learned(document) == [403, 431, INNER_END, 400, INNER_END, 1]


def test_first_id_of_a_document_is_never_learned(tokenizer: TextTokenizer) -> None:
    documents = [document for _ in range(3) for document in built("asr", tokenizer, Loss.ALL).of_rows([ROW, ROW], "s")]
    size = len(documents[0].ids)
    mask, positions = loss_mask_of(documents), positions_of(documents)
    assert len(documents) == 3
    assert np.flatnonzero(~mask).tolist() == list(range(0, 3 * size, size))
    assert positions.tolist() == list(range(size)) * 3
    assert positions.dtype == np.int32
    assert len(loss_mask_of([])) == len(positions_of([])) == 0


@pytest.mark.parametrize("too_long", [TooLong.TRUNCATE, TooLong.SPLIT])
@pytest.mark.parametrize("loss", Loss)
def test_learned_ids_stay_with_ids_that_are_cut(too_long: TooLong, loss: Loss, tokenizer: TextTokenizer) -> None:
    """But ends behind a cut are not learned, and a part without any learned id is dropped."""
    row = replace(ROW, codes=np.arange(32)[:, None])
    (document,) = built("tts", tokenizer, loss).of_rows([row], "speech")
    # All ids of this document differ, so that an id tells where it comes from.
    by_id = dict(zip(document.ids.tolist(), (document.learned if document.learned is not None else []), strict=True))
    assert len(by_id) == len(document.ids)
    dropped: list[str] = []
    for length in range(1, len(document.ids) + 1):
        for part in fit([document], PackingOptions(Packing.NONE, length, too_long), lambda _, why: dropped.append(why)):
            assert part.learned is not None
            assert part.learned[1:].any()
            expected = [by_id[one] for one in part.ids.tolist()]
            if part.n_truncated:
                kept = next(n for n, one in enumerate(part.ids.tolist()) if one in (END, 1))
                expected[kept:] = [False] * (len(expected) - kept)
            assert part.learned.tolist() == expected
    assert set(dropped) == {"filtered" if too_long == TooLong.SPLIT else "too_long"}


def test_documents_that_teach_nothing_are_dropped(tokenizer: TextTokenizer) -> None:
    (document,) = built("asr", tokenizer, Loss.ANSWER).of_rows([replace(ROW, codes=np.zeros((50, 1), int))], "speech")
    dropped: list[tuple[str, str]] = []
    options = PackingOptions(Packing.NONE, 20, TooLong.TRUNCATE)
    assert not list(fit([document], options, lambda one, why: dropped.append((one.id, why))))
    assert dropped == [("a", "too_long")]
    silent = document._replace(learned=np.zeros(len(document.ids), bool))
    assert not list(fit([silent], PackingOptions(), lambda one, why: dropped.append((one.id, why))))
    assert dropped[1:] == [("a", "filtered")]


def test_mark_at_the_end_of_a_template_ends_its_audio(tokenizer: TextTokenizer, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("row: [{codes: row}]\nend: [{token: <|endofaudio|>}, {token: eos}]")
    (document,) = built(tmp_path / "mine.yaml", tokenizer, Loss.AUDIO).of_rows([ROW], "speech")
    assert learned(document) == [403, 431, END]


def test_loss_without_a_part_to_learn_is_refused(tokenizer: TextTokenizer, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--loss audio needs audio"):
        built("text", tokenizer, Loss.AUDIO)
    (tmp_path / "mine.yaml").write_text("row: [{codes: row}]\nend: [{token: eos}]")
    with pytest.raises(InputError, match="--loss answer needs a template with `answer`"):
        built(tmp_path / "mine.yaml", tokenizer, Loss.ANSWER)
    assert [learned(one) for one in built(tmp_path / "mine.yaml", tokenizer, Loss.AUDIO).of_rows([ROW], "s")] == [
        [403, 431, 1]  # eos stands directly behind the codes
    ]
