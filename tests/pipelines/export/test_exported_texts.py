"""Texts in tables and beside them: encoded as text, and rejects are recorded."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from codectok import CodectokError, InputError
from codectok.exports.sequences.text_tokenizer import TextTokenizer
from codectok.exports.tokenizer import extend_tokenizer
from codectok.pipelines.engine.options import RunOptions
from codectok.pipelines.export.documents import SequencesJob
from tests.helpers.exports import BEGIN, CODEBOOK, END, OFFSET, ROWS, VOCABULARY, export, options, sequences
from tests.helpers.jobs import rejects
from tests.helpers.tables import metadata, write
from tests.helpers.tokenizers import text_of


def test_tts_documents_decode_to_text_and_codes(table: Path, tokenizer: Path, tmp_path: Path) -> None:
    job = SequencesJob(options(template="tts", tokenizer=str(tokenizer)), [str(table)])
    report = export(job, tmp_path / "out")
    wanted = [row for row in ROWS if row.text]
    for made, before in zip(sequences(tmp_path / "out"), wanted, strict=True):
        ids = made["input_ids"]
        begin = ids.index(BEGIN)
        assert text_of(tokenizer, ids[:begin]) == before.text
        codes = VOCABULARY.codes_of(np.array(ids[begin + 1 : ids.index(END)]))
        np.testing.assert_array_equal(codes, before.codes)
    without = [r["source"] for r in rejects(tmp_path / "out")]
    assert without == [row.id for row in ROWS if not row.text]
    assert report.summary.total.rejects == {"filtered": len(without)}


def test_audio_token_strings_in_text_stay_text(tokenizer: Path, tmp_path: Path) -> None:
    extend_tokenizer(tokenizer, tmp_path / "extended", VOCABULARY)
    said = f"say {VOCABULARY.token(OFFSET)}<|beginofaudio|><|unused0|> aloud"
    write(tmp_path / "tokens" / "part-000000.parquet", [replace(ROWS[0], text=said)], metadata(CODEBOOK, 1))
    settings = options(template="tts", tokenizer=str(tmp_path / "extended"))
    export(SequencesJob(settings, [str(tmp_path / "tokens")]), tmp_path / "out")
    (made,) = sequences(tmp_path / "out")
    begin = made["input_ids"].index(BEGIN)
    assert text_of(tokenizer, made["input_ids"][:begin]) == said
    assert len(made["input_ids"]) == begin + len(ROWS[0].codes) + 3


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_text_without_field_is_rejected(suffix: str, table: Path, tokenizer: Path, tmp_path: Path) -> None:
    pages = [{"id": f"p{n}", "text": "words", "language": "en" if n % 3 else None, "more": 5} for n in range(12)]
    if suffix == "jsonl":
        (tmp_path / "books.jsonl").write_text("".join(json.dumps(page) + "\n" for page in pages))
    else:
        (tmp_path / "books").mkdir()
        pq.write_table(pa.Table.from_pylist(pages), tmp_path / "books" / "books.parquet")
    books = tmp_path / ("books.jsonl" if suffix == "jsonl" else "books")
    (tmp_path / "mine.yaml").write_text(
        "row: [{text: 'In {language} of {dataset}: {text}{extra.more}'}, {token: eos}]\n"
    )
    settings = options(tokenizer=str(tokenizer), templates={"books": str(tmp_path / "mine.yaml")})
    export(SequencesJob(settings, [str(table)], [str(books)]), tmp_path / "out")
    made = {r["ids"][0]: r["input_ids"] for r in sequences(tmp_path / "out") if r["ids"][0].startswith("p")}
    assert made.keys() == {f"p{n}" for n in range(12) if n % 3}
    assert {text_of(tokenizer, ids[:-1]) for ids in made.values()} == {"In en of books: words5"}
    left = [(r["source"], r["reason"], r["message"]) for r in rejects(tmp_path / "out")]
    assert left == [(f"p{n}", "filtered", f"The row p{n} has no language.") for n in range(0, 12, 3)]


def test_text_without_weights_is_exported_completely(table: Path, books: Path, tokenizer: Path, tmp_path: Path) -> None:
    job = SequencesJob(options(tokenizer=str(tokenizer)), [str(table)], [f"pages={books}"])
    summary = export(job, tmp_path / "out").summary
    assert summary.datasets["pages"].rows == 400
    assert summary.datasets["tokens"].rows == len(ROWS)
    ids = TextTokenizer(tokenizer).ids_of("page 17 of a book").tolist()
    assert [r["input_ids"] for r in sequences(tmp_path / "out") if r["ids"] == ["p17"]] == [[*ids, 0]]


def test_broken_json_lines_count_as_errors(table: Path, tokenizer: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text("no json\n" * 50)
    job = SequencesJob(options(tokenizer=str(tokenizer)), [str(table)], [str(tmp_path / "bad.jsonl")])
    with pytest.raises(CodectokError, match="inputs are broken"):
        export(job, tmp_path / "out", RunOptions(engine="local"))


def test_null_texts_are_filtered(table: Path, tokenizer: Path, tmp_path: Path) -> None:
    (tmp_path / "thin").mkdir()
    texts = [None] * 200 + ["words"]
    pq.write_table(pa.table({"text": pa.array(texts, pa.string())}), tmp_path / "thin" / "t.parquet")
    job = SequencesJob(options(tokenizer=str(tokenizer)), [str(table)], [str(tmp_path / "thin")])
    total = export(job, tmp_path / "out", RunOptions(engine="local")).summary.datasets["thin"]
    assert (total.inputs, total.rows, total.rejects) == (201, 1, {"filtered": 200})


@pytest.mark.parametrize("name", ["more.jsonl.gz", "more.jsonl.zst", "more.json", "below/MORE.TXT"])
def test_unsupported_text_format_is_refused(
    name: str, table: Path, books: Path, tokenizer: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "texts"
    (folder / name).parent.mkdir(parents=True)
    shutil.copy(books, folder)
    (folder / "README.md").write_text("What this is.")
    settings = options(tokenizer=str(tokenizer))
    SequencesJob(settings, [str(table)], [str(folder)])
    (folder / name).write_bytes(b"")
    for text in (str(folder), str(folder / name)):
        with pytest.raises(
            InputError, match=f"has {Path(name).name if text != str(folder) else name}, which is neither"
        ):
            SequencesJob(settings, [str(table)], [text])
    job = SequencesJob(settings, [str(table)], [f"texts={folder}/*.jsonl"])
    assert export(job, tmp_path / "out").summary.datasets["texts"].rows == 400


def test_text_source_has_template_without_codes(table: Path, books: Path, tokenizer: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("row: [{text: 'Read: {text}'}, {token: eos}]\n")
    named = [f"t={table}"], [f"books={books}"]
    mine = SequencesJob(options(tokenizer=str(tokenizer), templates={"books": str(tmp_path / "mine.yaml")}), *named)
    plain = SequencesJob(options(tokenizer=str(tokenizer)), *named)
    totals = [export(job, tmp_path / name).summary.datasets["books"].codes for name, job in (("a", mine), ("b", plain))]
    assert totals[0] > totals[1]
    with pytest.raises(InputError, match="has codes, but books is text"):
        SequencesJob(options(tokenizer=str(tokenizer), templates={"books": "tts"}), *named)
