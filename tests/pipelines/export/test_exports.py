"""Export jobs: each row exactly once, deterministic bytes."""

from __future__ import annotations

import hashlib
import json
import shutil
import uuid
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from codectok import CodectokError, InputError
from codectok.errors import VerificationError
from codectok.exports.choices import Packing, TooLong, UnittsStyle, UnittsTask
from codectok.exports.sequences.packing import PackingOptions
from codectok.exports.sequences.parquet import SequencesMetadata
from codectok.exports.sequences.text_tokenizer import TextTokenizer
from codectok.exports.unitts import COLUMNS
from codectok.pipelines.engine.job import RunUnit, WorkerContext
from codectok.pipelines.engine.options import RunOptions
from codectok.pipelines.engine.output.unit_output import UnitOutput
from codectok.pipelines.engine.planning.unit import Unit
from codectok.pipelines.export.document_job import DocumentJob
from codectok.pipelines.export.documents import MegatronJob, SequencesJob
from codectok.pipelines.export.unitts import UnittsJob, UnittsOptions
from codectok.pipelines.verify.output import verify_output
from codectok.sources.rejects import read_rejects
from codectok.storage import open_storage
from codectok.tokens.reader import open_table
from codectok.tokens.vocabulary import SPECIAL_TOKENS
from tests.helpers.exports import (
    BEGIN,
    CODEBOOK,
    END,
    OFFSET,
    ROWS,
    SMALL_PARTS,
    VOCABULARY,
    export,
    options,
    row,
    sequences,
    write_parts,
)
from tests.helpers.jobs import LOCAL, digests, rejects
from tests.helpers.megatron import read_indexed
from tests.helpers.tables import metadata, write
from tests.helpers.tokenizers import save_tokenizer


def test_audio_rows_become_sequences(table: Path, tmp_path: Path) -> None:
    report = export(SequencesJob(options(), [str(table)]), tmp_path / "out")
    assert report.summary.units > 2
    found = sequences(tmp_path / "out")
    assert [r["ids"] for r in found] == [[row.id] for row in ROWS]
    for made, before in zip(found, ROWS, strict=True):
        assert made["input_ids"] == [BEGIN, *(OFFSET + before.codes[:, 0]).tolist(), END, 0]
        assert made["lengths"] == [len(made["input_ids"])]
    assert report.summary.total.codes == sum(len(r["input_ids"]) for r in found)
    assert report.summary.total.seconds == pytest.approx(sum(row.duration for row in ROWS))
    described = pq.read_schema(tmp_path / "out" / "part-000000.parquet").metadata[b"codectok"]
    assert SequencesMetadata.model_validate_json(described).vocabulary_end == VOCABULARY.end
    assert verify_output(open_storage(tmp_path / "out")).rows == len(ROWS)


def test_vocabulary_end_covers_special_tokens_of_tokenizer(table: Path, tokenizer: Path, tmp_path: Path) -> None:
    fill = [f"<|fill{number}|>" for number in range(OFFSET - len(TextTokenizer(tokenizer).known_tokens()))]
    codes = list(VOCABULARY.tokens())[:CODEBOOK]
    save_tokenizer(tmp_path / "more", [*fill, *codes, "<|other|>", *SPECIAL_TOKENS])
    job = SequencesJob(options(tokenizer=str(tmp_path / "more")), [str(table)])
    export(job, tmp_path / "out")
    described = pq.read_schema(tmp_path / "out" / "part-000000.parquet").metadata[b"codectok"]
    assert SequencesMetadata.model_validate_json(described).vocabulary_end == VOCABULARY.end + 1


@pytest.mark.parametrize("kind", ["sequences", "megatron", "unitts", "audio-json"])
def test_resumed_export_writes_same_bytes(
    kind: str, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def job() -> DocumentJob | UnittsJob:
        if kind in ("unitts", "audio-json"):
            style = UnittsStyle.PARQUET if kind == "unitts" else UnittsStyle.AUDIO_JSON
            task = UnittsTask.TTS if kind == "unitts" else UnittsTask.AUDIO
            return UnittsJob(UnittsOptions(task, style, OFFSET, SMALL_PARTS), [str(table)])
        made = SequencesJob if kind == "sequences" else MegatronJob
        return made(options(packing=PackingOptions(Packing.FIRST_FIT, 256)), [str(table)])

    export(job(), tmp_path / "clean")
    clean = digests(tmp_path / "clean")
    stopping = job()
    start = type(stopping).start

    def stopped(self: Any, context: WorkerContext) -> RunUnit:
        run = start(self, context)

        def run_unit(unit: Unit, output: UnitOutput) -> None:
            run(unit, output)
            if unit.number == 2:
                raise KeyboardInterrupt

        return run_unit

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(type(stopping), "start", stopped)
        export(stopping, tmp_path / "out")
    (victim,) = [name for name in digests(tmp_path / "out") if name.endswith("records/000001.json")]
    (tmp_path / "out" / victim).unlink()
    report = export(job(), tmp_path / "out")
    assert report.new_units == report.summary.units - 1
    assert digests(tmp_path / "out") == clean
    assert export(job(), tmp_path / "out").new_units == 0
    verify_output(open_storage(tmp_path / "out"))


@pytest.mark.parametrize("template", ["tts", pytest.param("interleaved", marks=pytest.mark.slow)])
def test_workers_do_not_change_bytes(template: str, tokenizer: Path, tmp_path: Path, ray_session: None) -> None:
    tokens = write_parts(tmp_path / "tokens", 7)
    settings = options(
        template=template, tokenizer=str(tokenizer), packing=PackingOptions(Packing.NEXT_FIT, 300, TooLong.SPLIT)
    )
    export(SequencesJob(settings, [str(tokens)]), tmp_path / "one")
    ray = RunOptions(engine="ray", workers=2)
    export(SequencesJob(settings, [str(tokens)]), tmp_path / "two", ray)
    assert digests(tmp_path / "one") == digests(tmp_path / "two")


def test_packed_sequences_keep_document_lengths(table: Path, tmp_path: Path) -> None:
    for packing in (Packing.NEXT_FIT, Packing.FIRST_FIT):
        settings = options(packing=PackingOptions(packing, 200))
        export(SequencesJob(settings, [str(table)]), tmp_path / packing)
        found = sequences(tmp_path / packing)
        assert len(found) < len(ROWS) / 1.5
        assert all(len(r["input_ids"]) <= 200 for r in found)
        documents = {}
        for r in found:
            borders = np.cumsum([0, *r["lengths"]])
            assert borders[-1] == len(r["input_ids"])
            for name, first, end in zip(r["ids"], borders, borders[1:], strict=False):
                documents[name] = r["input_ids"][first:end]
        for before in ROWS:
            assert documents.pop(before.id) == [BEGIN, *(OFFSET + before.codes[:, 0]).tolist(), END, 0]
        assert not documents


def test_long_documents_are_rejected(table: Path, tmp_path: Path) -> None:
    export(SequencesJob(options(packing=PackingOptions(Packing.NONE, 60)), [str(table)]), tmp_path / "out")
    long = [row.id for row in ROWS if len(row.codes) + 3 > 60]
    assert [(r["source"], r["reason"]) for r in rejects(tmp_path / "out")] == [(name, "too_long") for name in long]


def test_rejects_are_written_in_small_groups(
    table: Path, tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("codectok.sources.rejects.HELD_REJECTS", 5)
    voiceless = tmp_path / "voiceless"
    voiceless.mkdir()
    write(voiceless / "part-000000.parquet", [replace(row, speaker=None) for row in ROWS], metadata(CODEBOOK, 1))
    values = {"template": "tts", "tokenizer": str(tokenizer), "voice": "speaker", "part_megabytes": 1.0}
    whole = options(**values, end_of_sequence=None)
    with pytest.raises(CodectokError, match="all inputs were rejected"):
        export(SequencesJob(whole, [str(voiceless)]), tmp_path / "none")
    assert not list((tmp_path / "none").glob("*.parquet"))
    export(SequencesJob(whole, [f"good={table}", f"bad={voiceless}"]), tmp_path / "some")
    for output in ("none", "some"):
        file = pq.ParquetFile(tmp_path / output / "_codectok" / "rejects" / "000000.parquet")
        assert max(file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)) == 5
        found = [reject.source for reject in read_rejects(open_storage(tmp_path / output))]
        assert found[: len(ROWS)] == [row.id for row in ROWS]
        assert [reject.source for reject in read_rejects(open_storage(tmp_path / output), 7)] == found[:7]
    verify_output(open_storage(tmp_path / "some"))
    weighted = replace(whole, weights={"good": 1.0, "bad": 1.0})
    with pytest.raises(CodectokError, match=r"no document of the source bad \(c000: The row c000 has no speaker\)"):
        export(SequencesJob(weighted, [f"good={table}", f"bad={voiceless}"]), tmp_path / "weighted")


def test_advice_on_long_documents(tokenizer: Path, tmp_path: Path) -> None:
    """Advice to cut rows leaves room for marks, and is given only for rows without text."""
    long = [row(n, 400) for n in range(5)]
    write(tmp_path / "long" / "part-000000.parquet", long, metadata(CODEBOOK, 1))
    # A second has 93.75 codes: 190 tokens hold two seconds, but not the marks around them.
    for length, cut in ((190, "1, or pass"), (191, "2, or pass"), (50, None)):
        job = SequencesJob(options(packing=PackingOptions(Packing.NONE, length)), [str(tmp_path / "long")])
        with pytest.raises(CodectokError, match=r"all inputs were rejected .* 100% of the audio in long") as raised:
            export(job, tmp_path / str(length))
        assert ("--max-seconds" in str(raised.value)) == (cut is not None)
        assert f"--max-seconds {cut}" in str(raised.value) or cut is None
    settings = options(template="asr", tokenizer=str(tokenizer), packing=PackingOptions(Packing.NONE, 300))
    with pytest.raises(CodectokError, match=r"longer than --length 300; pass --too-long split or a greater"):
        export(SequencesJob(settings, [str(tmp_path / "long")]), tmp_path / "asr")


def test_megatron_writes_prefix_per_part(table: Path, tmp_path: Path) -> None:
    export(MegatronJob(options(), [str(table)]), tmp_path / "megatron")
    export(SequencesJob(options(), [str(table)]), tmp_path / "sequences")
    lines = [line.split() for line in (tmp_path / "megatron" / "data-paths.txt").read_text().splitlines()]
    found = [read_indexed(tmp_path / "megatron" / prefix) for _, prefix in lines]
    assert len(found) > 2
    assert [s for part in found for s in part.sequences] == [r["input_ids"] for r in sequences(tmp_path / "sequences")]
    assert [int(tokens) for tokens, _ in lines] == [sum(map(len, part.sequences)) for part in found]
    assert {part.dtype for part in found} == {"<u2"}
    verify_output(open_storage(tmp_path / "megatron"))


def test_report_counts_each_source(table: Path, tokenizer: Path, books: Path, tmp_path: Path) -> None:
    job = SequencesJob(options(tokenizer=str(tokenizer)), [str(table)], [str(books)])
    found = export(job, tmp_path / "out").summary.datasets
    page = (tmp_path / "out" / "_codectok" / "report.html").read_text()
    header = ("dataset", "read", "kept", "documents", "tokens", "rejected")
    assert "".join(f"<th{' class=number' if name != 'dataset' else ''}>{name}</th>" for name in header) in page
    for counts in found.values():
        assert f"<td class=number>{counts.rows:,}</td><td class=number>{counts.codes:,}</td>" in page


def test_unitts_writes_parquet_and_audio_files(table: Path, tmp_path: Path) -> None:
    export(
        UnittsJob(UnittsOptions(UnittsTask.TTS, UnittsStyle.PARQUET, OFFSET, SMALL_PARTS), [str(table)]),
        tmp_path / "parquet",
    )
    found = sequences(tmp_path / "parquet")
    assert [tuple(r) for r in found] == [COLUMNS] * sum(row.text is not None for row in ROWS)
    text, audio = json.loads(found[0]["dialog"])[0]["content_list"]
    assert text == {"type": "text", "content": ROWS[0].text}
    assert audio["audio_infos"]["audio_tokens"] == (OFFSET + ROWS[0].codes[:, 0]).tolist()
    export(
        UnittsJob(UnittsOptions(UnittsTask.AUDIO, UnittsStyle.AUDIO_JSON, OFFSET, SMALL_PARTS), [str(table)]),
        tmp_path / "files",
    )
    files = sorted((tmp_path / "files").glob("part-*/*.audio"))
    assert len(files) == len(ROWS)
    for path, before in zip(files, ROWS, strict=True):
        assert json.loads(path.read_text())["audio_token"] == (OFFSET + before.codes[:, 0]).tolist()
    verify_output(open_storage(tmp_path / "files"))


def test_extend_exports_new_parts_of_table(table: Path, tmp_path: Path) -> None:
    folder = tmp_path / "tokens"
    for number in range(3):
        data = (table / f"part-{number:06d}.parquet").read_bytes()
        folder.mkdir(exist_ok=True)
        (folder / f"part-{number:06d}.parquet").write_bytes(data)
        if number == 1:
            export(SequencesJob(options(), [str(folder)]), tmp_path / "out")
    before = digests(tmp_path / "out")
    assert len(sequences(tmp_path / "out")) == 60
    export(SequencesJob(options(), [str(folder)]), tmp_path / "out", replace(LOCAL, extend=True))
    assert len(sequences(tmp_path / "out")) == 83
    after = digests(tmp_path / "out")
    assert all(after[name] == hashed for name, hashed in before.items() if name.startswith("part-"))


def test_another_export_to_same_folder_is_refused(table: Path, tokenizer: Path, tmp_path: Path) -> None:
    export(SequencesJob(options(), [str(table)]), tmp_path / "out")
    with pytest.raises(InputError, match="offset was 400 and is 500"):
        export(SequencesJob(options(offset=500), [str(table)]), tmp_path / "out")
    with pytest.raises(InputError, match=r"of another job: task differs, tokenizer was not given and is [0-9a-f]{64};"):
        export(SequencesJob(options(template="tts", tokenizer=str(tokenizer)), [str(table)]), tmp_path / "out")
    with pytest.raises(InputError, match="made by `export sequences`"):
        export(MegatronJob(options(), [str(table)]), tmp_path / "out")
    with pytest.raises(InputError, match="Parquet of codectok, but not a token table"):
        SequencesJob(options(), [str(tmp_path / "out")])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"template": "tts"}, "pass --tokenizer"),
        ({"weights": {"tokens": 1.0, "other": 1.0}}, "no source named 'other'; choose from tokens"),
        ({"templates": {"other": "tts"}}, "no source named 'other'"),
        ({"weights": {"tokens": 0.0}}, "a number above 0"),
        ({"part_megabytes": 0.0}, "above 0 MB"),
    ],
)
def test_invalid_document_options_are_refused(values: dict[str, object], message: str, table: Path) -> None:
    with pytest.raises(InputError, match=message):
        SequencesJob(options(**values), [str(table)])


def test_incompatible_sources_are_refused(table: Path, books: Path, tokenizer: Path, tmp_path: Path) -> None:
    write(tmp_path / "other" / "part-000000.parquet", ROWS[:1], metadata(CODEBOOK, 1, "other"))
    with pytest.raises(InputError, match="differ in codec"):
        SequencesJob(options(), [str(table), str(tmp_path / "other")])
    settings = options(tokenizer=str(tokenizer))
    with pytest.raises(InputError, match="both named 'tokens'"):
        SequencesJob(settings, [str(table)], [f"tokens={books}"])
    with pytest.raises(InputError, match="has no weight"):
        SequencesJob(replace(settings, weights={"tokens": 1.0}), [str(table)], [str(books)])
    with pytest.raises(InputError, match="There are no Parquet files"):
        SequencesJob(options(), [str(books.parent)])
    with pytest.raises(InputError, match="pass --tokenizer"):
        SequencesJob(options(), [str(table)], [str(books)])
    tables = [str(table), f"more={books}"]
    for make in (partial(SequencesJob, options()), partial(UnittsJob, UnittsOptions())):
        with pytest.raises(InputError, match=r"books.jsonl is text, not a token table; .* --text"):
            make(tables)
    with pytest.raises(InputError, match="no row #c000 in"):
        SequencesJob(options(template="tts", tokenizer=str(tokenizer), voice="#c000"), [str(table)])


def test_verify_finds_changed_parts(table: Path, tmp_path: Path) -> None:
    """Also if hashes agree with the changed files."""
    kinds: dict[str, DocumentJob | UnittsJob] = {
        "part-000001.parquet": SequencesJob(options(packing=PackingOptions(Packing.NEXT_FIT, 200)), [str(table)]),
        "part-000000.parquet": SequencesJob(options(), [str(table)]),
        "part-000001.idx": MegatronJob(options(), [str(table)]),
        "part-000002.parquet": UnittsJob(
            UnittsOptions(UnittsTask.TTS, UnittsStyle.PARQUET, OFFSET, SMALL_PARTS), [str(table)]
        ),
    }
    for number, (name, job) in enumerate(kinds.items()):
        out = tmp_path / str(number)
        export(job, out)
        verify_output(open_storage(out))
        path = out / name
        if name.endswith(".idx"):
            index = bytearray(path.read_bytes())
            index[34] += 1  # the length of the first sequence
            path.write_bytes(bytes(index))
        else:
            rows = pq.read_table(path).to_pylist()
            if name == "part-000000.parquet":
                rows[1]["datasets"][0] = "another"
            elif "lengths" in rows[0]:
                rows[1]["lengths"][0] += 1
            else:
                del rows[1]
            pq.write_table(pa.Table.from_pylist(rows, pq.read_schema(path)), path)
        record_path = out / "_codectok" / "records" / f"{name[5:11]}.json"
        record = json.loads(record_path.read_text())
        for file in record["files"]:
            if file["name"] == name:
                file |= {"bytes": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        record_path.write_text(json.dumps(record))
        with pytest.raises(VerificationError, match=r"do not add up|does not match|record says|other datasets"):
            verify_output(open_storage(out))


def test_table_is_read_from_object_store(table: Path, tmp_path: Path) -> None:
    url = f"memory://exports-{uuid.uuid4().hex}/tokens"
    files = fsspec.filesystem("memory")
    for path in table.glob("*.parquet"):
        files.pipe_file(f"{url.removeprefix('memory:/')}/{path.name}", path.read_bytes())
    export(SequencesJob(options(), [url]), tmp_path / "remote")
    export(SequencesJob(options(), [str(table)]), tmp_path / "local")
    assert sequences(tmp_path / "remote") == sequences(tmp_path / "local")


@pytest.mark.parametrize("make", [SequencesJob, MegatronJob, UnittsJob])
def test_export_reads_parquet_directly_in_folder_only(
    make: type[SequencesJob | MegatronJob | UnittsJob], books: Path, tmp_path: Path
) -> None:
    """Parquet files in subfolders and JSON lines are ignored."""
    folder = write_parts(tmp_path / "tokens", 50)
    write_parts(folder / "old", 50)
    shutil.copy(books, folder)
    job: DocumentJob | UnittsJob
    if issubclass(make, UnittsJob):
        job = make(UnittsOptions(UnittsTask.AUDIO, offset=OFFSET), [str(folder)])
    else:
        job = make(options(), [str(folder)])
    report = export(job, tmp_path / "out")
    assert report.summary.total.rows == len(open_table(folder)) == len(ROWS)
    assert report.summary.total.ignored == 3


def test_audio_files_of_equal_ids_do_not_collide(table: Path, tmp_path: Path) -> None:
    shutil.copytree(table, tmp_path / "again")
    job = UnittsJob(UnittsOptions(UnittsTask.AUDIO, UnittsStyle.AUDIO_JSON), [f"a={table}", f"b={tmp_path / 'again'}"])
    report = export(job, tmp_path / "out")
    files = list((tmp_path / "out").rglob("*.audio"))
    assert len(files) == report.summary.total.rows == 2 * len(ROWS)
    verify_output(open_storage(tmp_path / "out"))


def test_large_end_of_sequence_needs_32_bits(table: Path, tmp_path: Path) -> None:
    export(MegatronJob(options(offset=400, end_of_sequence="151643"), [str(table)]), tmp_path / "out")
    found = [ids for path in (tmp_path / "out").glob("*.idx") for ids in read_indexed(path.with_suffix("")).sequences]
    assert len(found) == len(ROWS)
    assert {int(ids[-1]) for ids in found} == {151_643}
