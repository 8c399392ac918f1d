"""Exports of tables as jobs: exactly once, the same bytes, what was asked for."""

from __future__ import annotations

import hashlib
import json
import shutil
import uuid
from collections import Counter
from dataclasses import replace
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from codectok import CodectokError, InputError
from codectok.errors import VerificationError
from codectok.exports.packing import PackingOptions
from codectok.exports.sequences import SequencesMetadata
from codectok.exports.text_tokenizer import TextTokenizer
from codectok.exports.tokenizer import extend_tokenizer
from codectok.exports.unitts import COLUMNS
from codectok.pipelines import shares
from codectok.pipelines.document_options import DocumentOptions
from codectok.pipelines.documents import MegatronJob, SequencesJob
from codectok.pipelines.engine import JobReport, RunOptions, run_job
from codectok.pipelines.job import Job, UnitOutput
from codectok.pipelines.plan import Unit
from codectok.pipelines.preview import preview_job
from codectok.pipelines.unitts import UnittsJob, UnittsOptions
from codectok.pipelines.verify import verify_output
from codectok.storage import open_storage
from codectok.tokens.reader import open_table
from codectok.tokens.table import TokenRow
from codectok.tokens.vocabulary import Vocabulary

from ..codectok.exports.test_megatron import read_indexed
from ..codectok.exports.tokenizers import save_tokenizer, text_of
from ..codectok.tokens.test_table import metadata, write
from .jobs import LOCAL, digests, rejects

CODEBOOK = 64
OFFSET = 400
VOCABULARY = Vocabulary(CODEBOOK, offset=OFFSET)
BEGIN, END, INNER_BEGIN, INNER_END = OFFSET + 64, OFFSET + 65, OFFSET + 67, OFFSET + 68
SMALL_PARTS = 0.004


def row(n: int, length: int) -> TokenRow:
    codes = np.random.default_rng(n).integers(CODEBOOK, size=(length, 1))
    text = None if n % 10 == 9 else f"clip number {n}"
    speaker = f"speaker {n % 3}" if n % 7 else None
    return TokenRow(
        f"c{n:03d}", f"{n // 5}.wav", "speech", 1.0 * n, length / 100, 240 * length, codes, text, "en", speaker
    )


ROWS = [row(n, 20 + 7 * n % 90) for n in range(83)]


def write_parts(folder: Path, rows_of_a_file: int) -> Path:
    for number, first in enumerate(range(0, len(ROWS), rows_of_a_file)):
        described = metadata(CODEBOOK, 1).model_copy(update={"unit_hash": str(number)})
        write(folder / f"part-{number:06d}.parquet", ROWS[first : first + rows_of_a_file], described)
    return folder


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_parts(tmp_path_factory.mktemp("tables") / "tokens", 30)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def books(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("texts") / "books.jsonl"
    path.write_text("".join(json.dumps({"text": f"page {n} of a book", "id": f"p{n}"}) + "\n" for n in range(400)))
    return path


def options(**values: object) -> DocumentOptions:
    return DocumentOptions(
        **{"offset": OFFSET, "end_of_sequence": "0", "part_megabytes": SMALL_PARTS, **values}  # type: ignore[arg-type]
    )


def export(job: Job, output: Path, run_options: RunOptions = LOCAL) -> JobReport:
    return run_job(job, job.sources.arguments, output, run_options)


def sequences(output: Path) -> list[dict[str, list]]:
    return [row for path in sorted(output.glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


def test_audio_becomes_sequences_one_for_each_row(table: Path, tmp_path: Path) -> None:
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


def test_text_and_audio_lead_back_to_both(table: Path, tokenizer: Path, tmp_path: Path) -> None:
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


def interleaved(table: Path, tokenizer: Path, output: Path, **values: object) -> list[dict[str, list]]:
    settings = options(template="interleaved", tokenizer=str(tokenizer), **values)
    export(SequencesJob(settings, [str(table)]), output)
    return sequences(output)


def test_a_recording_is_one_document_whatever_the_parts(table: Path, tokenizer: Path, tmp_path: Path) -> None:
    made = {
        megabytes: interleaved(table, tokenizer, tmp_path / str(megabytes), part_megabytes=megabytes)
        for megabytes in (SMALL_PARTS, 100.0)
    }
    assert made[SMALL_PARTS] == made[100.0]
    # A row without text, every tenth, is left out alone: it is the last of its recording.
    for found, n in zip(made[100.0], range(0, 83, 5), strict=True):
        wanted = [row for row in ROWS[n : n + 5] if row.text]
        assert found["ids"] == [wanted[0].id]
        assert found["input_ids"].count(INNER_BEGIN) == found["input_ids"].count(INNER_END) == len(wanted)
    assert [r["source"] for r in rejects(tmp_path / "100.0")] == [row.id for row in ROWS if not row.text]


@pytest.mark.parametrize("rows_of_a_file", [7, 2, 1])
def test_a_recording_that_crosses_files_stays_one_document(
    rows_of_a_file: int, table: Path, tokenizer: Path, tmp_path: Path
) -> None:
    cut = write_parts(tmp_path / "tokens", rows_of_a_file)
    wanted = interleaved(table, tokenizer, tmp_path / "whole")
    for megabytes in (0.002, 100.0):
        found = interleaved(cut, tokenizer, tmp_path / str(megabytes), part_megabytes=megabytes)
        assert found == wanted
        verify_output(open_storage(tmp_path / str(megabytes)))


def test_long_recordings_are_cut_between_rows(table: Path, tokenizer: Path, tmp_path: Path) -> None:
    found = interleaved(table, tokenizer, tmp_path / "out", packing=PackingOptions("none", 200))
    codes = [code for r in found for code in r["input_ids"] if OFFSET <= code < OFFSET + CODEBOOK]
    assert codes == [OFFSET + code for row in ROWS if row.text for code in row.codes[:, 0].tolist()]
    assert max(len(r["input_ids"]) for r in found) <= 200
    assert not [r for r in rejects(tmp_path / "out") if r["reason"] == "too_long"]


def test_new_files_do_not_change_where_recordings_end(tokenizer: Path, tmp_path: Path) -> None:
    tokens = write_parts(tmp_path / "tokens", 7)
    last = tokens / "part-000011.parquet"
    last.rename(tmp_path / "later.parquet")
    settings = options(template="interleaved", tokenizer=str(tokenizer))
    export(SequencesJob(settings, [str(tokens)]), tmp_path / "out")
    before = digests(tmp_path / "out")
    (tmp_path / "later.parquet").rename(last)
    export(SequencesJob(settings, [str(tokens)]), tmp_path / "out", replace(LOCAL, extend=True))
    after = digests(tmp_path / "out")
    assert {name: after[name] for name in before if name.startswith("part-")} == {
        name: hashed for name, hashed in before.items() if name.startswith("part-")
    }
    # The recording of the rows 75 to 79 goes on in the new file, as a document of its own.
    assert [r["ids"] for r in sequences(tmp_path / "out")][-3:] == [["c075"], ["c077"], ["c080"]]


@pytest.mark.parametrize("kind", ["sequences", "megatron", "unitts", "audio-json"])
def test_a_stopped_export_goes_on_to_the_same_bytes(
    kind: str, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def job() -> Job:
        if kind in ("unitts", "audio-json"):
            style = "parquet" if kind == "unitts" else kind
            task = "tts" if kind == "unitts" else "audio"
            return UnittsJob(UnittsOptions(task, style, OFFSET, SMALL_PARTS), [str(table)])
        made = SequencesJob if kind == "sequences" else MegatronJob
        return made(options(packing=PackingOptions("first-fit", 256)), [str(table)])

    export(job(), tmp_path / "clean")
    clean = digests(tmp_path / "clean")
    stopping = job()
    run = type(stopping).run

    def stopped(self: Job, unit: Unit, output: UnitOutput) -> None:
        run(self, unit, output)
        if unit.number == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(type(stopping), "run", stopped)
        export(stopping, tmp_path / "out")
    (victim,) = [name for name in digests(tmp_path / "out") if name.endswith("records/000001.json")]
    (tmp_path / "out" / victim).unlink()
    report = export(job(), tmp_path / "out")
    assert report.new_units == report.summary.units - 1
    assert digests(tmp_path / "out") == clean
    assert export(job(), tmp_path / "out").new_units == 0
    verify_output(open_storage(tmp_path / "out"))


@pytest.mark.parametrize("template", ["tts", "interleaved"])
def test_workers_never_change_a_byte(template: str, tokenizer: Path, tmp_path: Path, ray_session: None) -> None:
    tokens = write_parts(tmp_path / "tokens", 7)
    settings = options(template=template, tokenizer=str(tokenizer), packing=PackingOptions("next-fit", 300, "split"))
    export(SequencesJob(settings, [str(tokens)]), tmp_path / "one")
    ray = RunOptions(engine="ray", workers=2)
    export(SequencesJob(settings, [str(tokens)]), tmp_path / "two", ray)
    assert digests(tmp_path / "one") == digests(tmp_path / "two")


def test_packed_sequences_keep_the_borders_of_their_documents(table: Path, tmp_path: Path) -> None:
    for packing in ("next-fit", "first-fit"):
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


def test_long_documents_are_rejected_by_name(table: Path, tmp_path: Path) -> None:
    export(SequencesJob(options(packing=PackingOptions("none", 60)), [str(table)]), tmp_path / "out")
    long = [row.id for row in ROWS if len(row.codes) + 3 > 60]
    assert [(r["source"], r["reason"]) for r in rejects(tmp_path / "out")] == [(name, "too_long") for name in long]


def test_megatron_has_a_prefix_for_each_part(table: Path, tmp_path: Path) -> None:
    export(MegatronJob(options(), [str(table)]), tmp_path / "megatron")
    export(SequencesJob(options(), [str(table)]), tmp_path / "sequences")
    lines = [line.split() for line in (tmp_path / "megatron" / "data-paths.txt").read_text().splitlines()]
    found = [read_indexed(tmp_path / "megatron" / prefix) for _, prefix in lines]
    assert len(found) > 2
    assert [s for part in found for s in part.sequences] == [r["input_ids"] for r in sequences(tmp_path / "sequences")]
    assert [int(tokens) for tokens, _ in lines] == [sum(map(len, part.sequences)) for part in found]
    assert {part.dtype for part in found} == {"<u2"}
    verify_output(open_storage(tmp_path / "megatron"))


def test_a_mixture_has_the_shares_that_were_asked_for(
    table: Path, books: Path, tokenizer: Path, tmp_path: Path, any_share: None
) -> None:
    for until in ("first", "last"):
        settings = options(
            tokenizer=str(tokenizer),
            template="tts",
            templates={"sound": "audio"},
            weights={"tokens": 2.0, "sound": 1.0, "books": 3.0},
            until=until,
        )
        job = SequencesJob(settings, [str(table), f"sound={table}"], [str(books)])
        summary = export(job, tmp_path / until).summary
        assert summary.units > 3
        made = [one for r in sequences(tmp_path / until) for one in zip(r["ids"], r["datasets"], strict=True)]
        assert Counter(name for _, name in made) == {name: tally.rows for name, tally in summary.datasets.items()}
        assert {name for page, name in made if page.startswith("p")} == {"books"}
        verify_output(open_storage(tmp_path / until))
        tokens = {name: tally.codes for name, tally in summary.datasets.items()}
        total = sum(tokens.values())
        assert tokens["tokens"] / total == pytest.approx(2 / 6, abs=0.05)
        assert tokens["sound"] / total == pytest.approx(1 / 6, abs=0.05)
        assert tokens["books"] / total == pytest.approx(3 / 6, abs=0.05)
    # Until the last, every row is there, some several times; until the first, none is there twice.
    names = {until: Counter(r["ids"][0] for r in sequences(tmp_path / until)) for until in ("first", "last")}
    pages = {until: {name: n for name, n in found.items() if name.startswith("p")} for until, found in names.items()}
    assert set(pages["first"].values()) == {1}
    assert len(pages["last"]) == 400
    assert {row.id for row in ROWS} <= names["last"].keys()


def test_a_text_with_an_audio_token_in_it_has_no_audio(tokenizer: Path, tmp_path: Path) -> None:
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
def test_a_text_without_a_field_of_its_template_is_left_out_alone(
    suffix: str, table: Path, tokenizer: Path, tmp_path: Path
) -> None:
    pages = [{"id": f"p{n}", "text": "words", "language": "en" if n % 3 else None, "more": n} for n in range(12)]
    if suffix == "jsonl":
        (tmp_path / "books.jsonl").write_text("".join(json.dumps(page) + "\n" for page in pages))
    else:
        (tmp_path / "books").mkdir()
        pq.write_table(pa.Table.from_pylist(pages), tmp_path / "books" / "books.parquet")
    books = tmp_path / ("books.jsonl" if suffix == "jsonl" else "books")
    (tmp_path / "mine.yaml").write_text("row: [{text: 'In {language} of {dataset}: {text}'}, {token: eos}]\n")
    settings = options(tokenizer=str(tokenizer), templates={"books": str(tmp_path / "mine.yaml")})
    export(SequencesJob(settings, [str(table)], [str(books)]), tmp_path / "out")
    made = {r["ids"][0]: r["input_ids"] for r in sequences(tmp_path / "out") if r["ids"][0].startswith("p")}
    assert made.keys() == {f"p{n}" for n in range(12) if n % 3}
    assert {text_of(tokenizer, ids[:-1]) for ids in made.values()} == {"In en of books: words"}
    left = [(r["source"], r["reason"], r["message"]) for r in rejects(tmp_path / "out")]
    assert left == [(f"p{n}", "filtered", f"The row p{n} has no language.") for n in range(0, 12, 3)]


def test_text_beside_tables_without_weights_comes_whole(
    table: Path, books: Path, tokenizer: Path, tmp_path: Path
) -> None:
    job = SequencesJob(options(tokenizer=str(tokenizer)), [str(table)], [f"pages={books}"])
    summary = export(job, tmp_path / "out").summary
    assert summary.datasets["pages"].rows == 400
    assert summary.datasets["tokens"].rows == len(ROWS)
    ids = TextTokenizer(tokenizer).ids_of("page 17 of a book").tolist()
    assert [r["input_ids"] for r in sequences(tmp_path / "out") if r["ids"] == ["p17"]] == [[*ids, 0]]


def test_a_voice_is_another_clip_of_the_speaker_or_one_row(table: Path, tokenizer: Path, tmp_path: Path) -> None:
    by_id = {row.id: row for row in ROWS}
    codes = {tuple((OFFSET + row.codes[:, 0]).tolist()): row for row in ROWS}
    for voice in ("speaker", "c004"):
        settings = options(template="tts", tokenizer=str(tokenizer), voice=voice)
        report = export(SequencesJob(settings, [str(table)]), tmp_path / voice)
        found = sequences(tmp_path / voice)
        assert len(found) == report.summary.total.rows > 40
        assert voice not in {r["ids"][0] for r in found}  # it would be told what to say
        for r in found:
            before = by_id[r["ids"][0]]
            assert r["input_ids"][0] == INNER_BEGIN
            heard = codes[tuple(r["input_ids"][1 : r["input_ids"].index(INNER_END)])]
            if voice == "speaker":
                assert heard.speaker == before.speaker
                assert heard.id != before.id
            else:
                assert heard.id == "c004"
    messages = {r["source"]: r["message"] for name in ("speaker", "c004") for r in rejects(tmp_path / name)}
    assert messages["c007"] == "The row c007 has no speaker."
    assert messages["c004"] == "The row c004 is the voice itself."
    with pytest.raises(InputError, match="There is no row nobody"):
        SequencesJob(options(template="tts", tokenizer=str(tokenizer), voice="nobody"), [str(table)])
    with pytest.raises(InputError, match="the template has none"):
        SequencesJob(options(voice="speaker"), [str(table)])


def test_a_voice_may_lie_in_another_table(table: Path, tokenizer: Path, tmp_path: Path) -> None:
    other = replace(ROWS[3], id="c000", dataset="voices")
    write(tmp_path / "voices" / "part-000000.parquet", [other], metadata(CODEBOOK, 1))
    settings = options(template="tts", tokenizer=str(tokenizer), voice=f"{tmp_path / 'voices'}#c000")
    export(SequencesJob(settings, [str(table)]), tmp_path / "out")
    found = sequences(tmp_path / "out")
    assert [r["ids"] for r in found] == [[row.id] for row in ROWS if row.text]
    for r in found:
        assert r["input_ids"][1 : r["input_ids"].index(INNER_END)] == (OFFSET + other.codes[:, 0]).tolist()
    with pytest.raises(InputError, match=r"no row c001 in .*voices"):
        SequencesJob(replace(settings, voice=f"{tmp_path / 'voices'}#c001"), [str(table)])


def test_speakers_of_two_datasets_are_not_one(tokenizer: Path, tmp_path: Path) -> None:
    """Datasets that number their speakers from 0 on, merged into one table."""
    made = [replace(row, text="words", speaker="0", dataset="ab"[n % 2]) for n, row in enumerate(ROWS[:8])]
    write(tmp_path / "tokens" / "part-000000.parquet", made, metadata(CODEBOOK, 1))
    settings = options(template="tts", tokenizer=str(tokenizer), voice="speaker")
    export(SequencesJob(settings, [str(tmp_path / "tokens")]), tmp_path / "out")
    codes = {tuple((OFFSET + row.codes[:, 0]).tolist()): row for row in made}
    by_id = {row.id: row for row in made}
    found = sequences(tmp_path / "out")
    assert len(found) == len(made)
    for r in found:
        heard = codes[tuple(r["input_ids"][1 : r["input_ids"].index(INNER_END)])]
        assert heard.dataset == by_id[r["ids"][0]].dataset


def test_unitts_gets_its_two_forms(table: Path, tmp_path: Path) -> None:
    export(UnittsJob(UnittsOptions("tts", "parquet", OFFSET, SMALL_PARTS), [str(table)]), tmp_path / "parquet")
    found = sequences(tmp_path / "parquet")
    assert [tuple(r) for r in found] == [COLUMNS] * sum(row.text is not None for row in ROWS)
    text, audio = json.loads(found[0]["dialog"])[0]["content_list"]
    assert text == {"type": "text", "content": ROWS[0].text}
    assert audio["audio_infos"]["audio_tokens"] == (OFFSET + ROWS[0].codes[:, 0]).tolist()
    export(UnittsJob(UnittsOptions("audio", "audio-json", OFFSET, SMALL_PARTS), [str(table)]), tmp_path / "files")
    files = sorted((tmp_path / "files").glob("part-*/*.audio"))
    assert len(files) == len(ROWS)
    for path, before in zip(files, ROWS, strict=True):
        assert json.loads(path.read_text())["audio_token"] == (OFFSET + before.codes[:, 0]).tolist()
    verify_output(open_storage(tmp_path / "files"))


def test_new_parts_of_a_table_are_taken_in_on_request(table: Path, tmp_path: Path) -> None:
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


def test_another_export_into_the_same_folder_is_refused(table: Path, tokenizer: Path, tmp_path: Path) -> None:
    export(SequencesJob(options(), [str(table)]), tmp_path / "out")
    with pytest.raises(InputError, match="offset was 400 and is 500"):
        export(SequencesJob(options(offset=500), [str(table)]), tmp_path / "out")
    with pytest.raises(InputError, match="made by `export sequences`"):
        export(MegatronJob(options(), [str(table)]), tmp_path / "out")
    with pytest.raises(InputError, match="Parquet of codectok, but no token table"):
        SequencesJob(options(), [str(tmp_path / "out")])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"template": "tts"}, "pass --tokenizer"),
        ({"weights": {"tokens": 1.0, "other": 1.0}}, "no source named 'other'; there are tokens"),
        ({"templates": {"other": "tts"}}, "no source named 'other'"),
        ({"weights": {"tokens": 0.0}}, "a number above 0"),
        ({"part_megabytes": 0.0}, "impossible"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is_written(
    values: dict[str, object], message: str, table: Path
) -> None:
    with pytest.raises(InputError, match=message):
        SequencesJob(options(**values), [str(table)])


def test_sources_that_do_not_go_together_are_refused(table: Path, books: Path, tokenizer: Path, tmp_path: Path) -> None:
    write(tmp_path / "other" / "part-000000.parquet", ROWS[:1], metadata(CODEBOOK, 1, "other"))
    with pytest.raises(InputError, match="different codecs"):
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


def test_broken_lines_of_text_are_errors_of_the_corpus(table: Path, tokenizer: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text("no json\n" * 50)
    job = SequencesJob(options(tokenizer=str(tokenizer)), [str(table)], [str(tmp_path / "bad.jsonl")])
    with pytest.raises(CodectokError, match="inputs are broken"):
        export(job, tmp_path / "out", RunOptions(engine="local"))


def test_verify_finds_parts_that_are_not_what_they_say(table: Path, tmp_path: Path) -> None:
    """Even if somebody has made the hashes agree."""
    kinds = {
        "part-000001.parquet": SequencesJob(options(packing=PackingOptions("next-fit", 200)), [str(table)]),
        "part-000000.parquet": SequencesJob(options(), [str(table)]),
        "part-000001.idx": MegatronJob(options(), [str(table)]),
        "part-000002.parquet": UnittsJob(UnittsOptions("tts", "parquet", OFFSET, SMALL_PARTS), [str(table)]),
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
        with pytest.raises(VerificationError, match=r"do not add up|does not describe|record says|other datasets"):
            verify_output(open_storage(out))


def test_tables_may_lie_in_an_object_store(table: Path, tmp_path: Path) -> None:
    url = f"memory://exports-{uuid.uuid4().hex}/tokens"
    files = fsspec.filesystem("memory")
    for path in table.glob("*.parquet"):
        files.pipe_file(f"{url.removeprefix('memory:/')}/{path.name}", path.read_bytes())
    export(SequencesJob(options(), [url]), tmp_path / "remote")
    export(SequencesJob(options(), [str(table)]), tmp_path / "local")
    assert sequences(tmp_path / "remote") == sequences(tmp_path / "local")


@pytest.mark.parametrize("name", ["more.jsonl.gz", "more.jsonl.zst", "more.json", "below/MORE.TXT"])
def test_a_text_that_cannot_be_read_is_refused_and_not_left_out(
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


@pytest.mark.parametrize("make", [SequencesJob, MegatronJob, UnittsJob])
def test_a_table_is_what_its_other_readers_take_it_for(make: type[Job], books: Path, tmp_path: Path) -> None:
    """Its Parquet files, without those in folders of it and without lines."""
    folder = write_parts(tmp_path / "tokens", 50)
    write_parts(folder / "old", 50)
    shutil.copy(books, folder)
    settings = UnittsOptions("audio", offset=OFFSET) if make is UnittsJob else options()
    report = export(make(settings, [str(folder)]), tmp_path / "out")
    assert report.summary.total.rows == len(open_table(folder)) == len(ROWS)
    assert report.summary.total.ignored == 3


def test_clips_of_two_tables_with_the_same_ids_are_two_files(table: Path, tmp_path: Path) -> None:
    shutil.copytree(table, tmp_path / "again")
    job = UnittsJob(UnittsOptions("audio", "audio-json"), [f"a={table}", f"b={tmp_path / 'again'}"])
    report = export(job, tmp_path / "out")
    files = list((tmp_path / "out").rglob("*.audio"))
    assert len(files) == report.summary.total.rows == 2 * len(ROWS)
    verify_output(open_storage(tmp_path / "out"))


def test_an_end_of_sequence_beyond_16_bits_takes_32(table: Path, tmp_path: Path) -> None:
    export(MegatronJob(options(offset=400, end_of_sequence="151643"), [str(table)]), tmp_path / "out")
    found = [ids for path in (tmp_path / "out").glob("*.idx") for ids in read_indexed(path.with_suffix("")).sequences]
    assert len(found) == len(ROWS)
    assert {int(ids[-1]) for ids in found} == {151_643}


@pytest.fixture
def any_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of these tests are smaller than any real share of one."""
    monkeypatch.setattr(shares, "LEAST_SHARE", 1)


def mixed(table: Path, text: Path, tokenizer: Path, megabytes: float = 0.002) -> SequencesJob:
    settings = options(
        tokenizer=str(tokenizer), weights={"t": 1.0, "text": 1.0}, until="last", part_megabytes=megabytes
    )
    return SequencesJob(settings, [f"t={table}"], [f"text={text}"])


def test_a_source_too_small_for_its_weight_is_refused_before_anything_is_written(
    table: Path, tokenizer: Path, tmp_path: Path
) -> None:
    lonely = tmp_path / "lonely.jsonl"
    lonely.write_text('{"text": "one row"}\n')
    with pytest.raises(InputError, match=r"source text has 0.0 kB, too little .* \(--part-megabytes 1\)"):
        export(mixed(table, lonely, tokenizer), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(InputError, match="too little"):
        preview_job(job := mixed(table, lonely, tokenizer), job.sources.arguments, tmp_path / "out", LOCAL)
    assert export(mixed(table, lonely, tokenizer, 1.0), tmp_path / "out").summary.units == 1


def test_new_parts_without_a_weighted_source_are_refused_and_the_finished_ones_stay(
    table: Path, books: Path, tokenizer: Path, tmp_path: Path
) -> None:
    tokens, texts = tmp_path / "tokens", tmp_path / "texts"
    tokens.mkdir()
    texts.mkdir()
    shutil.copy(table / "part-000000.parquet", tokens)
    shutil.copy(books, texts / "0.jsonl")
    export(mixed(tokens, texts, tokenizer, 1.0), tmp_path / "out")
    before = digests(tmp_path / "out")
    shutil.copy(table / "part-000001.parquet", tokens)
    extended = replace(LOCAL, extend=True)
    with pytest.raises(InputError, match="source text has nothing for new parts"):
        export(mixed(tokens, texts, tokenizer, 1.0), tmp_path / "out", extended)
    assert digests(tmp_path / "out") == before
    assert export(mixed(tokens, texts, tokenizer, 1.0), tmp_path / "out").new_units == 0
    shutil.copy(books, texts / "1.jsonl")
    assert export(mixed(tokens, texts, tokenizer, 1.0), tmp_path / "out", extended).new_units == 1
    verify_output(open_storage(tmp_path / "out"))


def test_a_part_in_which_all_of_a_source_is_left_out_fails_alone_and_says_why(
    table: Path, tokenizer: Path, tmp_path: Path, any_share: None
) -> None:
    text = tmp_path / "text.jsonl"
    text.write_text(
        "".join(json.dumps({"id": f"p{n}", "text": "page" * (not 150 < n < 500)}) + "\n" for n in range(800))
    )
    job = mixed(table, text, tokenizer, 0.008)
    with pytest.raises(
        CodectokError, match=r"units failed .*no document of the source text \(p\d+: The text is empty\)"
    ):
        export(job, tmp_path / "out")
    n_units = preview_job(job, job.sources.arguments, tmp_path / "out", LOCAL).units
    made = len(list((tmp_path / "out").glob("part-*.parquet")))
    assert 0 < made < n_units


def test_a_text_has_a_template_too_but_no_codes(table: Path, books: Path, tokenizer: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("row: [{text: 'Read: {text}'}, {token: eos}]\n")
    named = [f"t={table}"], [f"books={books}"]
    mine = SequencesJob(options(tokenizer=str(tokenizer), templates={"books": str(tmp_path / "mine.yaml")}), *named)
    plain = SequencesJob(options(tokenizer=str(tokenizer)), *named)
    totals = [export(job, tmp_path / name).summary.datasets["books"].codes for name, job in (("a", mine), ("b", plain))]
    assert totals[0] > totals[1]
    with pytest.raises(InputError, match="has codes, but books is text"):
        SequencesJob(options(tokenizer=str(tokenizer), templates={"books": "tts"}), *named)
