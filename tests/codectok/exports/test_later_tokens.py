"""Tokens of text that are added to a tokenizer before or after it is extended stay out of the range of audio."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from codectok import InputError
from codectok.exports.sequences.text_tokenizer import TextTokenizer, TokenIds
from codectok.exports.tokenizer import check_same_tokens, extend_tokenizer
from codectok.exports.vocabulary import VocabularyFile, write_vocabulary
from codectok.tokens.layouts.layout import TokenLayout
from codectok.tokens.layouts.loading import load_layout
from codectok.tokens.vocabulary import SPECIAL_TOKENS, Vocabulary
from tests.helpers.language_models import ROWS, TOKENS
from tests.helpers.tables import metadata
from tests.helpers.tokenizers import save_tokenizer

FIXED = TokenLayout(
    name="fixed",
    kind="ids",
    first_id=330,
    token="<a{number}>",
    slot_stride=80,
    special_tokens=("<begin>", "<end>"),
    special_tokens_place="before",
)
VOCABULARIES = {
    "behind padding": Vocabulary(60, offset=ROWS),
    "without a gap": Vocabulary(60, offset=TOKENS),
    "marks before": Vocabulary(60, offset=ROWS, layout=load_layout("llasa")),
    "marks before, without a gap": Vocabulary(60, offset=TOKENS + 8, layout=load_layout("llasa")),
    "fixed ids": Vocabulary(60, n_residuals=2, offset=330, layout=FIXED),
    "several codebooks": Vocabulary(20, n_groups=2, n_residuals=2, offset=ROWS),
}
EACH = pytest.mark.parametrize("vocabulary", VOCABULARIES.values(), ids=VOCABULARIES)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def with_tokens(source: Path, output: Path, tokens: Sequence[str], special: bool = False) -> Path:
    tokenizer = AutoTokenizer.from_pretrained(source)
    tokenizer.add_tokens(list(tokens), special_tokens=special)
    tokenizer.save_pretrained(output)
    return output


@EACH
@pytest.mark.parametrize("special", [False, True], ids=["text", "special"])
def test_extended_tokenizer_numbers_new_tokens_behind_audio(
    vocabulary: Vocabulary, special: bool, base: Path, tmp_path: Path
) -> None:
    extend_tokenizer(base, tmp_path / "out", vocabulary)
    late = [f"<|late{number}|>" for number in range(3)]
    tokenizer = TextTokenizer(with_tokens(tmp_path / "out", tmp_path / "late", late, special))
    known = tokenizer.known_tokens()
    assert [known[token] for token in late] == [vocabulary.end, vocabulary.end + 1, vocabulary.end + 2]
    assert {token: known[token] for token in vocabulary.tokens()} == {
        token: vocabulary.id_of(token) for token in vocabulary.tokens()
    }
    ids = TokenIds.of(vocabulary, tokenizer)
    described = VocabularyFile.of(metadata(60, 1), vocabulary, ids.special_tokens)
    assert (described.first, described.end) == (vocabulary.first, vocabulary.end)
    audio = [token_id for token_id in known.values() if vocabulary.first <= token_id < vocabulary.end]
    assert len(audio) == vocabulary.end - vocabulary.first


@EACH
def test_new_tokens_of_the_original_tokenizer_are_refused_in_the_audio_range(
    vocabulary: Vocabulary, base: Path, tmp_path: Path
) -> None:
    """It numbers them from the first row of padding on."""
    room = vocabulary.first - TOKENS
    late = [f"<|late{number}|>" for number in range(room + 1)]
    if room:
        fitting = TextTokenizer(with_tokens(base, tmp_path / "fits", late[:-1]))
        assert fitting.known_tokens()[late[-2]] == vocabulary.first - 1
        TokenIds.of(vocabulary, fitting)
        with pytest.raises(InputError, match="begin"):
            extend_tokenizer(with_tokens(base, tmp_path / "many", late), tmp_path / "no", vocabulary)
    reaching = TextTokenizer(with_tokens(base, tmp_path / "reaches", late))
    assert reaching.known_tokens()[late[-1]] == vocabulary.first
    with pytest.raises(
        InputError, match=f"{late[-1].replace('|', '.')}. at {vocabulary.first}, among the audio tokens"
    ):
        TokenIds.of(vocabulary, reaching)


def test_tokenizer_must_fit_the_extended_model(base: Path, tmp_path: Path) -> None:
    vocabulary = VOCABULARIES["behind padding"]
    special = {token: vocabulary.id_of(token) for token in SPECIAL_TOKENS}
    extend_tokenizer(base, tmp_path / "out", vocabulary)
    late = with_tokens(tmp_path / "out", tmp_path / "late", ["<|late|>"])
    model = tmp_path / "model"
    for folder, rows in ((base, vocabulary.end), (tmp_path / "out", vocabulary.end), (late, vocabulary.end + 1)):
        check_same_tokens(folder, special, rows, model)
    with pytest.raises(InputError, match=r"<\|late\|>.* at 388, but the embedding of .*model has 388 rows; resize"):
        check_same_tokens(late, special, vocabulary.end, model)
    # The marks of the original tokenizer got ids of padding.
    marked = with_tokens(base, tmp_path / "marked", SPECIAL_TOKENS)
    with pytest.raises(InputError, match=r"<\|beginofaudio\|> at 277, but the model in .*model has it at 380"):
        check_same_tokens(marked, special, vocabulary.end, model)


def test_vocabulary_file_records_the_range_of_audio(base: Path, tmp_path: Path) -> None:
    codec = metadata(60, 1)
    llasa = load_layout("llasa")
    described = write_vocabulary(codec, tmp_path / "before", ROWS, layout=llasa)
    assert (described.first, described.offset, described.end) == (ROWS - 8, ROWS, ROWS + 60)
    assert json.loads((tmp_path / "before" / "vocabulary.json").read_text())["first"] == ROWS - 8
    # With marks of the tokenizer, ids before the codes are free for text.
    marked = TextTokenizer(with_tokens(base, tmp_path / "marked", llasa.special_tokens))
    assert write_vocabulary(codec, tmp_path / "own", 400, marked, llasa).first == 400
    # Files of earlier versions lack the key.
    told = json.loads((tmp_path / "own" / "vocabulary.json").read_text())
    del told["first"]
    assert VocabularyFile.model_validate(told).first is None
