"""Documents of many rows at once: the same as those of single rows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from codectok.exports.sequences.builder import DocumentBuilder, OnMissing
from codectok.exports.sequences.builders import make_builder
from codectok.exports.sequences.documents import Document, MissingFieldError
from codectok.exports.sequences.template_files import load_template
from codectok.exports.sequences.text_tokenizer import TextTokenizer, TokenIds
from codectok.tokens import table as table_module
from codectok.tokens.source_rows import code_rows, token_rows
from codectok.tokens.table import TokenRow
from codectok.tokens.vocabulary import Vocabulary
from tests.helpers.ranges import cut, source_of
from tests.helpers.tables import metadata, rows, write
from tests.helpers.tokenizers import save_tokenizer

DESCRIBED = metadata(32, 2).model_copy(update={"n_residuals": 2})
TEMPLATES = {
    "named.yaml": """
begin: [{token: <|sil|>}, {token: <|beginofaudio|>}]
row: [{text: "{language} {id}"}, {codes: row}, {token: <|endofaudio|>}, {text: "{text}"}]
end: [{token: eos}, {token: eos}]
""",
    "alone.yaml": "row: [{codes: row}]",
}


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(table_module, "ROW_GROUP_CODES", 200)
    made = [
        replace(row, language="en" if n % 3 else None, codes=row.codes if n != 5 else row.codes[:0])
        for n, row in enumerate(rows(31, 32))
    ]
    write(tmp_path / "t.parquet", made, DESCRIBED)
    return tmp_path / "t.parquet"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> TextTokenizer:
    return TextTokenizer(save_tokenizer(tmp_path_factory.mktemp("tokenizer")))


def values(document: Document) -> dict[str, Any]:
    return {**document._asdict(), "ids": (document.ids.dtype, document.ids.tolist())}


def noted(refused: list[str]) -> OnMissing:
    """A function that notes rows that lack a field."""
    return lambda row, error: refused.append(f"{row} {error}")


def builder_of(name: str | Path, tokenizer: TextTokenizer) -> DocumentBuilder:
    tokens = TokenIds.of(Vocabulary.for_codec(DESCRIBED, 400), tokenizer)
    return make_builder(load_template(name), tokens, tokenizer)


@pytest.mark.parametrize("name", ["audio", "tts", "asr", *TEMPLATES])
def test_rows_together_become_the_documents_of_single_rows(
    name: str, table: Path, tokenizer: TextTokenizer, tmp_path: Path
) -> None:
    template: str | Path = name
    if name in TEMPLATES:
        template = tmp_path / name
        template.write_text(TEMPLATES[name])
    builder = builder_of(template, tokenizer)
    assert builder.takes_code_rows
    for source in (source_of(table), *cut(source_of(table), 3)):
        refused: tuple[list[str], list[str]] = ([], [])
        seconds: list[float] = []
        single = list(token_rows(source, DESCRIBED))
        expected = [one for row in single for one in builder.of_rows([row], "speech", None, noted(refused[0]))]
        found = [
            one
            for batch in code_rows(source, DESCRIBED, builder.columns)
            for one in builder.of_code_rows(batch, "speech", seconds.append, noted(refused[1]))
        ]
        assert list(map(values, found)) == list(map(values, expected))
        assert refused[0] == refused[1]
        assert seconds == [row.duration for row in single]


@pytest.mark.parametrize("name", ["interleaved", "ATAT:1"])
def test_documents_of_several_rows_are_made_row_by_row(name: str, tokenizer: TextTokenizer) -> None:
    assert not builder_of(name, tokenizer).takes_code_rows


def test_row_of_a_batch_is_the_row_of_the_table(table: Path) -> None:
    expected = list(token_rows(source_of(table), DESCRIBED))
    found = [
        batch.row(number)
        for batch in code_rows(source_of(table), DESCRIBED, None)
        for number in range(len(batch.columns["id"]))
    ]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one.codes, other.codes)
        assert replace(one, codes=other.codes) == other
    assert isinstance(found[0], TokenRow)


def test_only_the_requested_columns_are_read(table: Path) -> None:
    for batch in code_rows(source_of(table), DESCRIBED, ("id", "duration")):
        assert set(batch.columns) == {"id", "duration"}
        assert len(batch.codes) == batch.borders[-1]


def test_a_row_without_a_field_raises_by_default(table: Path, tokenizer: TextTokenizer) -> None:
    (batch, *_) = code_rows(source_of(table), DESCRIBED, None)
    with pytest.raises(MissingFieldError, match="text"):
        list(builder_of("tts", tokenizer).of_code_rows(batch, "speech", lambda seconds: None))
