"""Commands `codectok export`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from codectok.exports.vocabulary import VocabularyFile
from codectok.tokens.table import TokenRow, read_metadata, read_rows
from codectok.tokens.vocabulary import Vocabulary
from tests.helpers.command_line import assert_refused, codectok, one_line
from tests.helpers.megatron import read_indexed
from tests.helpers.storage import upload
from tests.helpers.tables import metadata, rows, write
from tests.helpers.tokenizers import save_tokenizer

LOCAL = ("--engine", "local")


def squeezed(shown: str) -> str:
    """Remove whitespace and borders, which depend on the table's width."""
    return "".join(shown.replace("│", "").split())


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


def test_export_help_shows_example() -> None:
    for form in ("compact", "vocabulary", "sequences", "megatron", "unitts"):
        result = codectok("export", form, "--help")
        assert result.exit_code == 0
        assert f"codectok export {form}" in one_line(result.stdout)


def test_export_vocabulary_of_codec_or_table(codec: Path, table: Path, qwen: Path, tmp_path: Path) -> None:
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


def test_export_sequences_and_megatron_agree(table: Path, qwen: Path, tmp_path: Path) -> None:
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


def extended(folder: Path, table: Path, rows: int = 600) -> Path:
    """Write the configuration of a model with the tokens of the table's codec from 500 on."""
    folder.mkdir()
    audio = VocabularyFile.of(read_metadata(table), Vocabulary(64, offset=500), {})
    config = {"model_type": "qwen2", "vocab_size": rows, "codectok": audio.model_dump()}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def first_code(form: str, out: Path) -> int:
    """Id of code 0; the first row has no other codes."""
    if form == "vocabulary":
        return json.loads((out / "tokens.json").read_text())["<|g0r0_500|>"]
    if form == "unitts":
        (first, *_) = pq.read_table(out / "part-000000.parquet")["dialog"].to_pylist()
        return json.loads(first)[0]["content_list"][0]["audio_infos"]["audio_tokens"][0]
    sequences = (
        pq.read_table(out / "part-000000.parquet")["input_ids"].to_pylist()
        if form == "sequences"
        else read_indexed(out / "part-000000").sequences
    )
    return sequences[0][1]


@pytest.mark.parametrize("form", ["vocabulary", "unitts", "sequences", "megatron"])
def test_offset_comes_from_model_or_tokenizer_folder(form: str, table: Path, qwen: Path, tmp_path: Path) -> None:
    audio = extended(tmp_path / "audio", table)
    bare = save_tokenizer(tmp_path / "bare")
    cases: list[tuple[tuple[object, ...], str]] = [
        (("--model", qwen), f"500 (the rows of {qwen})"),
        (("--model", audio), "500 (as in"),
    ]
    if form != "unitts":
        cases.append((("--tokenizer", qwen), f"500 (the rows of {qwen})"))
    if form in ("sequences", "megatron"):
        cases = [((*arguments, "--eos", "0"), shown) for arguments, shown in cases]
    job = () if form == "vocabulary" else LOCAL
    if form == "unitts":
        job = (*job, "--task", "asr")
    for number, (arguments, shown) in enumerate(cases):
        result = codectok("export", form, table, out := tmp_path / f"out-{number}", *arguments, *job)
        assert result.exit_code == 0, result.output
        assert shown.replace(" ", "") in squeezed(result.stdout)
        assert first_code(form, out) == 500
    arguments = () if form == "unitts" else ("--tokenizer", bare)
    result = codectok("export", form, table, tmp_path / "assumed", *arguments, *job)
    assert result.exit_code == 0, result.output
    assert "152064(assumed:therowsofQwen2.5-7B" in squeezed(result.stdout)


@pytest.mark.parametrize("form", ["vocabulary", "unitts", "sequences", "megatron"])
def test_model_of_another_codec_is_refused(form: str, table: Path, qwen: Path, tmp_path: Path) -> None:
    """For every place of its configuration, and also if another option decides the offset."""
    audio = extended(tmp_path / "audio", table)
    save_tokenizer(audio)
    write(tmp_path / "other" / "part-000000.parquet", rows(3), metadata(64, 1, fingerprint="other"))
    job = () if form == "vocabulary" else LOCAL
    beside = ("--tokenizer", audio)
    named: list[tuple[object, ...]] = [("--model", audio)]
    if form != "unitts":
        named += [beside, (*beside, "--model", qwen), (*beside, "--offset", 500)]
    for arguments in named:
        result = codectok("export", form, tmp_path / "other", tmp_path / "no", *arguments, *job)
        assert_refused(result, "has the tokens of another codec (nano f, not nano other)")
        assert not (tmp_path / "no").exists()


def test_export_vocabulary_and_tokenizer_read_table_url(table: Path, qwen: Path, tmp_path: Path) -> None:
    url = upload(table, f"memory://{tmp_path.name}")
    result = codectok("export", "vocabulary", url, tmp_path / "vocabulary", "--model", qwen)
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "vocabulary" / "vocabulary.json").read_text())["codec_fingerprint"] == "f"
    result = codectok("export", "tokenizer", qwen, tmp_path / "tokenizer", "--codec", url)
    assert result.exit_code == 0, result.output
    assert "offset500(therowsof" in squeezed(result.stdout)
    missing = codectok("export", "vocabulary", f"{url}-none", tmp_path / "no")
    assert_refused(missing, "memory://")


def test_dry_run_shows_offset(table: Path, qwen: Path, tmp_path: Path) -> None:
    result = codectok("export", "unitts", table, tmp_path / "no", "--model", qwen, "--dry-run", *LOCAL)
    assert result.exit_code == 0, result.output
    assert "500(therowsof" in squeezed(result.stdout)


def test_dry_run_does_not_count_text_as_audio(table: Path, qwen: Path, tmp_path: Path) -> None:
    (tmp_path / "books.jsonl").write_text('{"text": "page"}\n' * 100_000)
    options = ("--text", tmp_path / "books.jsonl", "--tokenizer", qwen, "--offset", 500, "--dry-run", *LOCAL)
    result = codectok("export", "sequences", table, tmp_path / "no", *options)
    assert result.exit_code == 0, result.output
    shown = one_line(result.stdout)
    assert "to read │ about 1.7" in shown
    assert "audio to read" not in shown


def test_export_mixture_with_template_file(table: Path, qwen: Path, tmp_path: Path) -> None:
    (tmp_path / "books.jsonl").write_text("".join(json.dumps({"text": f"page {n}"}) + "\n" for n in range(200)))
    (tmp_path / "mine.yaml").write_text('row: [{text: "{speaker}: "}, {codes: row}]\nend: [{token: eos}]')
    result = codectok(
        *("export", "sequences", table, f"sound={table}", tmp_path / "out", "--tokenizer", qwen, "--offset", 500),
        *("--text", tmp_path / "books.jsonl", "--task", tmp_path / "mine.yaml", "--task", "sound=audio", *LOCAL),
        *("--weight", "tokens=1", "--weight", "sound=1", "--weight", "books=2"),
    )
    assert result.exit_code == 0, result.output
    assert "by dataset" in result.stdout
    summary = json.loads((tmp_path / "out" / "_codectok" / "summary.json").read_text())["datasets"]
    for name, counts in summary.items():
        shown = squeezed(result.stdout).partition("bydataset")[2]
        assert f"{counts['rows']:,}{counts['codes']:,}none" in shown, name
    names = {row["ids"][0] for row in pq.read_table(tmp_path / "out" / "part-000000.parquet").to_pylist()}
    assert any(name.startswith("books.jsonl:") for name in names)
    assert "r0" in names


def test_export_compact_resumes_and_writes_table(table: Path, tmp_path: Path) -> None:
    made = [replace(row, id=f"more-{row.id}") for row in read_rows(table)]
    write(table / "part-000001.parquet", made, read_metadata(table))
    command = ("export", "compact", table, tmp_path / "out", *LOCAL)
    result = codectok(*command)
    assert result.exit_code == 0, result.output
    shown = one_line(result.stdout)
    assert "rows │ 12 " in shown
    assert "units │ 1 of 1" in shown
    assert "already finished" in codectok(*command).stdout
    assert codectok("inspect", tmp_path / "out").exit_code == 0
    assert codectok("export", "huggingface", tmp_path / "out").exit_code == 0
    assert_refused(codectok(*command, "--file-megabytes", 1, "--group-megabytes", 1), "another job", "file-megabytes")
    assert_refused(codectok("export", "compact", table / "none", tmp_path / "no", *LOCAL), "no file or folder")


def test_export_unitts(table: Path, tmp_path: Path) -> None:
    result = codectok("export", "unitts", table, tmp_path / "out", "--task", "asr", *LOCAL)
    assert result.exit_code == 0, result.output
    (first, *_) = pq.read_table(tmp_path / "out" / "part-000000.parquet")["dialog"].to_pylist()
    assert json.loads(first)[0]["content_list"][0]["audio_infos"]["audio_tokens"] == [152_064] * 5


def test_mixed_table_is_exported_on_request(table: Path, tmp_path: Path) -> None:
    more = [replace(row, id=f"more-{row.id}") for row in read_rows(table)]
    write(table / "part-000001.parquet", more, metadata(64, 1).model_copy(update={"dtype": "bfloat16"}))
    commands = [(kind, table, tmp_path / kind, *LOCAL) for kind in ("compact", "unitts", "sequences", "megatron")]
    for command in [*commands, ("huggingface", table)]:
        refused = codectok("export", *command)
        assert_refused(refused, "differ in dtype: float32 and bfloat16", "--allow-mixed")
        allowed = codectok("export", *command, "--allow-mixed")
        assert allowed.exit_code == 0, allowed.output
    shown = squeezed(codectok("inspect", tmp_path / "compact").stdout)
    assert "mixedoncpu;dtype:bfloat16andfloat32" in shown
    assert codectok("export", "vocabulary", table, tmp_path / "vocabulary").exit_code == 0


def test_invalid_export_arguments_are_refused(table: Path, qwen: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for arguments, words in (
        (("--task", "tts"), ("pass --tokenizer",)),
        (("--task", "sing"), ("There is no template sing",)),
        (("--task", "tts", "--task", "asr"), ("--task has two values",)),
        (("--weight", "3"), ("names no source", "NAME=3")),
        (("--weight", "tokens=much"), ("a number, not 'much'",)),
        (("--packing", "next-fit"), ("needs a length",)),
        (("--eos", "<|end|>", "--tokenizer", qwen), ("has no token '<|end|>'",)),
        (("--offset", 3), ("pass --eos",)),
        (("--offset", -1), ("impossible",)),
        (("--voice", "speaker"), ("the template has none",)),
        (("--text", tmp_path / "none.jsonl"), ("There is no file or folder",)),
    ):
        assert_refused(codectok("export", "sequences", table, out, *arguments, *LOCAL), *words)
        assert not out.exists()
    assert_refused(codectok("export", "unitts", table, out, "--style", "audio-json", *LOCAL), "holds audio alone")
    assert_refused(codectok("export", "megatron", tmp_path / "qwen", out, *LOCAL), "no Parquet files")


def test_export_reports_documents_dropped_as_too_long(table: Path, qwen: Path, tmp_path: Path) -> None:
    (tmp_path / "books.jsonl").write_text('{"text": "a"}\n{"text": "many words of a long book, far more than fit"}\n')
    options = ("--text", tmp_path / "books.jsonl", "--tokenizer", qwen, "--offset", 500, "--length", 12)
    result = codectok("export", "sequences", table, tmp_path / "drop", *options, *LOCAL)
    assert result.exit_code == 0, result.output
    said = one_line(result.output)
    assert "17% of the audio in tokens was dropped, in documents longer than --length 12" in said
    assert "--length 12; pass --too-long split" in said  # a document has no room for a second of audio
    assert "50% of the texts in books was dropped" in said
    result = codectok("export", "sequences", table, tmp_path / "split", *options, "--too-long", "split", *LOCAL)
    assert result.exit_code == 0, result.output
    assert "dropped" not in one_line(result.output)
