"""`codectok export` as a user meets it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from codectok.tokens.table import TokenRow

from ..exports.test_megatron import read_indexed
from ..exports.tokenizers import save_tokenizer
from ..tokens.test_table import metadata, write
from .test_cli import assert_refused, codec, codectok, one_line  # noqa: F401  # a fixture

LOCAL = ("--engine", "local")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    made = [
        TokenRow(f"r{n}", "a.wav", "d", n, 1.0, 24_000, np.full((5 + n, 1), n), "some words", "en", "ann")
        for n in range(6)
    ]
    write(tmp_path / "tokens" / "part-000000.parquet", made, metadata(64, 1))
    return tmp_path / "tokens"


@pytest.fixture
def qwen(tmp_path: Path) -> Path:
    folder = save_tokenizer(tmp_path / "qwen")
    (folder / "config.json").write_text(json.dumps({"model_type": "qwen2", "vocab_size": 500}))
    return folder


def test_every_form_shows_an_example() -> None:
    for form in ("compact", "vocabulary", "sequences", "megatron", "unitts"):
        result = codectok("export", form, "--help")
        assert result.exit_code == 0
        assert f"codectok export {form}" in one_line(result.stdout)


def test_the_vocabulary_of_a_codec_or_a_table(codec: Path, table: Path, qwen: Path, tmp_path: Path) -> None:  # noqa: F811
    cases = ((codec, (), 152_064), (table, ("--model", qwen), 500), (table, ("--offset", 7), 7))
    for source, arguments, offset in cases:
        out = tmp_path / f"vocabulary-{offset}"
        result = codectok("export", "vocabulary", source, out, *arguments)
        assert result.exit_code == 0, result.output
        described = json.loads((out / "vocabulary.json").read_text())
        assert described["offset"] == offset
        assert f"{described['end']:,} at least" in one_line(result.stdout)
    result = codectok("export", "vocabulary", table, tmp_path / "no", "--offset", 7, "--tokenizer", qwen)
    assert_refused(result, "among the audio tokens from 7 to 78", "pass --offset")
    result = codectok("export", "vocabulary", table, tmp_path / "no", "--offset", 7, "--model", qwen)
    assert_refused(result, "pass one of them")


def test_sequences_and_megatron_hold_the_same(table: Path, qwen: Path, tmp_path: Path) -> None:
    options = ("--task", "tts", "--tokenizer", qwen, "--model", qwen, "--packing", "next-fit", "--length", 64)
    for form in ("sequences", "megatron"):
        result = codectok("export", form, table, tmp_path / form, *options, *LOCAL)
        assert result.exit_code == 0, result.output
        assert "documents │ 6 " in one_line(result.stdout)
    ids = pq.read_table(tmp_path / "sequences" / "part-000000.parquet")["input_ids"].to_pylist()
    assert ids == read_indexed(tmp_path / "megatron" / "part-000000").sequences
    assert len(ids) < 6
    again = codectok("export", "sequences", table, tmp_path / "sequences", *options, *LOCAL)
    assert "already finished" in again.stdout
    assert codectok("verify", tmp_path / "sequences").exit_code == 0
    assert codectok("verify", tmp_path / "megatron").exit_code == 0


def test_mixtures_and_templates_of_ones_own(table: Path, qwen: Path, tmp_path: Path) -> None:
    (tmp_path / "books.jsonl").write_text("".join(json.dumps({"text": f"page {n}"}) + "\n" for n in range(200)))
    (tmp_path / "mine.yaml").write_text('row: [{text: "{speaker}: "}, {codes: row}]\nend: [{token: eos}]')
    result = codectok(
        *("export", "sequences", table, f"sound={table}", tmp_path / "out", "--tokenizer", qwen, "--offset", 500),
        *("--text", tmp_path / "books.jsonl", "--task", tmp_path / "mine.yaml", "--task", "sound=audio", *LOCAL),
        *("--weight", "tokens=1", "--weight", "sound=1", "--weight", "books=2"),
    )
    assert result.exit_code == 0, result.output
    assert "by dataset" in result.stdout
    names = {row["ids"][0] for row in pq.read_table(tmp_path / "out" / "part-000000.parquet").to_pylist()}
    assert any(name.startswith("books.jsonl:") for name in names)
    assert "r0" in names


def test_unitts(table: Path, tmp_path: Path) -> None:
    result = codectok("export", "unitts", table, tmp_path / "out", "--task", "asr", *LOCAL)
    assert result.exit_code == 0, result.output
    (first, *_) = pq.read_table(tmp_path / "out" / "part-000000.parquet")["dialog"].to_pylist()
    assert json.loads(first)[0]["content_list"][0]["audio_infos"]["audio_tokens"] == [152_064] * 5


def test_refusals(table: Path, qwen: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for arguments, words in (
        (("--task", "tts"), ("pass --tokenizer",)),
        (("--task", "sing"), ("There is no template sing",)),
        (("--task", "tts", "--task", "asr"), ("--task says two things",)),
        (("--weight", "3"), ("names no source", "NAME=3")),
        (("--weight", "tokens=much"), ("a number, not 'much'",)),
        (("--packing", "next-fit"), ("needs a length",)),
        (("--eos", "<|end|>", "--tokenizer", qwen), ("knows no token '<|end|>'",)),
        (("--offset", 3), ("pass --eos",)),
        (("--offset", -1), ("impossible",)),
        (("--voice", "speaker"), ("the template has none",)),
        (("--text", tmp_path / "none.jsonl"), ("There is no file or folder",)),
    ):
        assert_refused(codectok("export", "sequences", table, out, *arguments, *LOCAL), *words)
        assert not out.exists()
    assert_refused(codectok("export", "unitts", table, out, "--style", "audio-json", *LOCAL), "holds audio alone")
    assert_refused(codectok("export", "megatron", tmp_path / "qwen", out, *LOCAL), "no Parquet files")
