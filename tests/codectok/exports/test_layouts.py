"""Vocabularies, tokenizers and language models with the token layouts of others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from codectok import Codec, InputError
from codectok.config import VectorQuantizerConfig
from codectok.exports.language_model.extend import extend_language_model
from codectok.exports.language_model.vocabulary import read_model_vocabulary
from codectok.exports.sequences.text_tokenizer import TextTokenizer, TokenIds
from codectok.exports.tokenizer import extend_tokenizer
from codectok.exports.vocabulary import VocabularyFile, write_vocabulary
from codectok.tokens.layouts.layout import TokenLayout
from codectok.tokens.layouts.loading import PRESETS, load_layout
from codectok.tokens.layouts.reading import read_text, text_of
from codectok.tokens.layouts.record import LAYOUT_FILE, read_layout_record
from codectok.tokens.vocabulary import Vocabulary
from tests.helpers.codecs import NANO
from tests.helpers.language_models import ROWS, TOKENS, qwen2, write_model
from tests.helpers.tables import metadata
from tests.helpers.tokenizers import save_tokenizer

SPACED = TokenLayout(
    name="spaced",
    kind="ids",
    first_id=400,
    token="<a{number}>",
    slot_stride=80,
    special_tokens=("<begin>", "<end>"),
    special_tokens_place="before",
    begin_audio="<begin>",
    end_audio="<end>",
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def layouts() -> list[TokenLayout]:
    return [load_layout(name) for name in PRESETS if name != "orpheus"] + [SPACED]


@pytest.mark.parametrize("layout", layouts(), ids=lambda layout: layout.name)
def test_extended_tokenizer_reads_text_of_layout(layout: TokenLayout, base: Path, tmp_path: Path) -> None:
    """Ids of a text with codes are those of the vocabulary, and decoding them restores the text."""
    vocabulary = Vocabulary(60, offset=layout.first_id or 330, layout=layout)
    extend_tokenizer(base, tmp_path / "out", vocabulary)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert len(tokenizer) == vocabulary.end
    codes = np.array([[0], [59], [7], [7]])
    text = f"Hello {text_of(codes, vocabulary, structure=True)}"
    ids = tokenizer(text).input_ids
    begin, end = (vocabulary.id_of(str(token)) for token in (layout.begin_audio, layout.end_audio))
    assert ids[ids.index(begin) :] == [begin, *vocabulary.ids_of(codes).tolist(), end]
    assert tokenizer.decode(ids) == text
    np.testing.assert_array_equal(read_text(str(tokenizer.decode(ids)), vocabulary, strict=True).codes, codes)
    assert tokenizer("Hello world").input_ids == AutoTokenizer.from_pretrained(base)("Hello world").input_ids
    record = read_layout_record(tmp_path / "out")
    if layout.name == "unitts":
        assert record is None and not (tmp_path / "out" / LAYOUT_FILE).exists()
    else:
        assert record is not None
        assert (record.name, record.sha256, record.definition) == (layout.name, layout.sha256, layout)
    known = TextTokenizer(tmp_path / "out")
    assert TokenIds.of(vocabulary, known).of_token("<|beginofaudio|>") == begin
    with pytest.raises(InputError, match="already has the token"):
        extend_tokenizer(tmp_path / "out", tmp_path / "twice", vocabulary)


def test_tokenizer_of_another_layout_is_refused(base: Path, tmp_path: Path) -> None:
    for name, other in (("llasa", "unitts"), ("unitts", "neutts"), ("soda", "unitts"), ("unitts", "apertus")):
        own = load_layout(name)
        if not (tmp_path / name).exists():
            extend_tokenizer(base, tmp_path / name, Vocabulary(60, offset=340, layout=own))
        tokenizer = TextTokenizer(tmp_path / name)
        with pytest.raises(InputError, match=f"layout {name}.* not of the layout {other}"):
            TokenIds.of(Vocabulary(60, offset=340, layout=load_layout(other)), tokenizer)
    with pytest.raises(InputError, match="layout unitts"):  # at other ids, too
        TokenIds.of(Vocabulary(60, offset=1000, layout=load_layout("llasa")), TextTokenizer(tmp_path / "unitts"))


def test_character_of_texts_is_not_taken_for_a_code(base: Path, tmp_path: Path) -> None:
    wrapped = TextTokenizer(base).wrapped
    wrapped.add_tokens(["\uff0c"])
    wrapped.save_pretrained(tmp_path / "wide")
    with pytest.raises(InputError, match=r"a character of texts .* first_character: 0xF0000"):
        extend_tokenizer(tmp_path / "wide", tmp_path / "out", Vocabulary(60, offset=340, layout=load_layout("soda")))


def test_marks_of_templates_follow_layout() -> None:
    llasa, neutts = (Vocabulary(60, offset=400, layout=load_layout(name)) for name in ("llasa", "neutts"))
    marks = ("<|beginofaudio|>", "<|endofaudio|>", "<|inter_audio_begin|>", "<|inter_audio_end|>")
    own = ("SPEECH_GENERATION_START", "SPEECH_GENERATION_END", "SPEECH_UNDERSTANDING_START", "SPEECH_UNDERSTANDING_END")
    found = [TokenIds.of(llasa, None).of_token(mark) for mark in marks]
    assert found == [llasa.id_of(f"<|{name}|>") for name in own] == [396, 397, 398, 399]
    # NeuTTS has one pair of marks.
    assert [TokenIds.of(neutts, None).of_token(mark) for mark in marks] == [462, 463, 462, 463]
    bare = Vocabulary(60, layout=TokenLayout(name="bare", kind="template", token="<{code}>"))
    with pytest.raises(InputError, match="the layout bare has no such mark"):
        TokenIds.of(bare, None).of_token("<|beginofaudio|>")
    with pytest.raises(InputError, match="unknown"):
        TokenIds.of(neutts, None).of_token("<|sil|>")


def test_vocabulary_files_record_layout(tmp_path: Path) -> None:
    codec = metadata(codebook_size=4096, n_codebooks=7).model_copy(update={"n_residuals": 7})
    write_vocabulary(codec, tmp_path / "out", 128_266, layout=load_layout("orpheus"))
    described = VocabularyFile.model_validate_json((tmp_path / "out" / "vocabulary.json").read_text())
    assert described.layout is not None
    assert described.layout.definition == load_layout("orpheus")
    assert described.layout.sha256 == load_layout("orpheus").sha256
    tokens = json.loads((tmp_path / "out" / "tokens.json").read_text())
    assert tokens == {f"<custom_token_{n}>": 128_256 + n for n in range(10 + 7 * 4096)}
    assert described.end == 128_266 + 7 * 4096
    write_vocabulary(codec, tmp_path / "default", 1000)
    assert "layout" not in json.loads((tmp_path / "default" / "vocabulary.json").read_text())


def test_language_model_gets_rows_of_layout(tmp_path: Path) -> None:
    """Rows of codes stand at the ids of the layout; marks, and ids between codebooks, get the mean row."""
    quantizer = VectorQuantizerConfig(n_groups=2, codebook_size=60, codebook_dim=64)
    codec = Codec.from_config(NANO.model_copy(update={"quantizer": quantizer}), seed=1, device="cpu")
    write_model(tmp_path / "model", qwen2())
    done = extend_language_model(tmp_path / "model", tmp_path / "out", codec, layout=SPACED)
    assert (done.vocabulary.offset, done.rows) == (400, 400 + 2 * 80)
    before, after = (AutoModelForCausalLM.from_pretrained(tmp_path / name) for name in ("model", "out"))
    embeddings: list[Any] = [after.get_input_embeddings(), before.get_input_embeddings()]
    rows, text = (embedding.weight for embedding in embeddings)
    torch.testing.assert_close(rows[:ROWS], text)
    mean = text[:TOKENS].mean(0)
    for group in range(2):
        first = 400 + 80 * group
        torch.testing.assert_close(rows[first : first + 60], codec.codebooks[group] / 100)
        torch.testing.assert_close(rows[first + 60 : first + 80], mean.expand(20, -1))
    torch.testing.assert_close(rows[ROWS:400], mean.expand(400 - ROWS, -1))
    vocabulary = read_model_vocabulary(tmp_path / "out")
    vocabulary.check_layout(SPACED, tmp_path / "out")
    with pytest.raises(InputError, match=r"layout spaced .* not of unitts .* --layout"):
        vocabulary.check_layout(load_layout("unitts"), tmp_path / "out")
    after.save_pretrained(tmp_path / "saved")
    assert read_model_vocabulary(tmp_path / "saved").audio == vocabulary.audio


def test_offset_leaves_room_for_marks(tmp_path: Path) -> None:
    codec = Codec.from_config(NANO, seed=1, device="cpu")
    write_model(tmp_path / "model", qwen2())
    llasa = load_layout("llasa")
    with pytest.raises(InputError, match="8 special tokens"):
        extend_language_model(tmp_path / "model", tmp_path / "out", codec, TOKENS + 7, layout=llasa)
    done = extend_language_model(tmp_path / "model", tmp_path / "out", codec, layout=llasa)
    assert done.vocabulary.offset == ROWS + 8
    low = SPACED.model_copy(update={"first_id": TOKENS + 1})
    with pytest.raises(InputError, match=r"layout spaced .* within the ids"):
        extend_language_model(tmp_path / "model", tmp_path / "no", codec, layout=low)


def test_tokenizer_with_further_tokens_of_a_layout_is_accepted(base: Path, tmp_path: Path) -> None:
    """As Orpheus's, which has some tokens behind those of the codes; too few tokens are those of another codec."""
    n_fill = 398 - len(TextTokenizer(base).known_tokens())
    fill = [f"<|fill{number}|>" for number in range(n_fill)]
    vocabulary = Vocabulary(60, n_residuals=2, offset=400, layout=SPACED)
    tokens = list(vocabulary.tokens())
    more = save_tokenizer(tmp_path / "more", [*fill, *tokens, "<a160>", "<a161>"])
    assert TokenIds.of(vocabulary, TextTokenizer(more)).special_tokens == {"<begin>": 398, "<end>": 399}
    fewer = save_tokenizer(tmp_path / "fewer", [*fill, *tokens[:-5]])
    with pytest.raises(InputError, match="another codec"):
        TokenIds.of(vocabulary, TextTokenizer(fewer))
