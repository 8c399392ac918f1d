"""`verify` checks token tables, encodes rows again, and decodes some to listen to."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from codectok import Codec, CodectokError, InputError
from codectok.audio.files import read_audio
from codectok.errors import VerificationError
from codectok.exports.dataset_card import write_dataset_card
from codectok.pipelines.tokenize.job import TokenizeJob
from codectok.pipelines.tokenize.options import TokenizeOptions
from codectok.pipelines.tokenize.reencode import decode_some, reencode
from codectok.pipelines.verify.output import verify_output
from codectok.storage import open_storage
from codectok.tokens.table import METADATA_KEY, TableMetadata, read_rows
from tests.helpers.audio import tone
from tests.helpers.codebook_learning import first_codebook
from tests.helpers.jobs import run
from tests.helpers.records import update_record


@pytest.fixture(scope="module")
def whole_table(codec_folder: Path, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("table") / "out"
    options = TokenizeOptions(str(codec_folder), device="cpu", max_seconds=4.0, part_seconds=15.0)
    run(TokenizeJob(options), corpus, folder)
    return folder


@pytest.fixture
def table(whole_table: Path, tmp_path: Path) -> Path:
    shutil.copytree(whole_table, tmp_path / "table")
    return tmp_path / "table"


def test_table_without_rows_is_verified(codec_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.wav").write_bytes(b"RIFF")
    with pytest.raises(CodectokError, match="all inputs were rejected"):
        run(TokenizeJob(TokenizeOptions(str(codec_folder), device="cpu")), tmp_path / "in", tmp_path / "out")
    assert verify_output(open_storage(tmp_path / "out")).rows == 0


def test_rejects_of_long_names_are_verified(codec_folder: Path, tmp_path: Path) -> None:
    folder = (tmp_path / "in").joinpath(*[letter * 200 for letter in "abcdef"])
    folder.mkdir(parents=True)
    soundfile.write(tmp_path / "in" / "good.wav", tone(2.0, 16_000), 16_000)
    (folder / "bad.wav").write_bytes(b"RIFF")
    run(TokenizeJob(TokenizeOptions(str(codec_folder), device="cpu")), tmp_path / "in", tmp_path / "out")
    assert verify_output(open_storage(tmp_path / "out")).rows == 1


def test_intact_table_is_verified(table: Path) -> None:
    verified = verify_output(open_storage(table))
    assert verified.rows == len(list(read_rows(table)))


def test_dataset_card_is_not_an_orphan(table: Path) -> None:
    write_dataset_card(table)
    verify_output(open_storage(table))


def forge(table: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    """Change the first part, and update size and hash in its record."""
    path = table / "part-000000.parquet"
    before = pq.read_table(path)
    changed = change(before)
    pq.write_table(changed.cast(before.schema) if changed.schema.metadata else changed, path)
    update_record(table, path)


def with_column(name: str, values: Callable[[list[Any]], list[Any]]) -> Callable[[pa.Table], pa.Table]:
    def change(rows: pa.Table) -> pa.Table:
        number = rows.schema.get_field_index(name)
        field = rows.schema.field(number)
        return rows.set_column(number, field, pa.array(values(rows[name].to_pylist()), field.type))

    return change


FORGERIES = {
    "a code beyond 1023": with_column("codes", lambda lists: [[1024, *lists[0][1:]], *lists[1:]]),
    "does not have n_frames codes": with_column("codes", lambda lists: [lists[0][1:], *lists[1:]]),
    "a number of frames": with_column("n_samples", lambda values: [values[0] + 256, *values[1:]]),
    "a duration that does not follow": with_column("duration", lambda values: [values[0] + 1, *values[1:]]),
    "its record says": lambda rows: rows.slice(1),
    "is also the id of a row": with_column("id", lambda values: [values[1], *values[1:]]),
    "does not count the codes": with_column("codes", lambda lists: [[*lists[0][1:], lists[0][0] ^ 1], *lists[1:]]),
    "no valid metadata": lambda rows: rows.replace_schema_metadata(None),
    "is not in the plan": with_column("source", lambda names: ["another.wav", *names[1:]]),
}  # fmt: skip


@pytest.mark.parametrize("message", FORGERIES)
def test_verify_finds_forged_rows(message: str, table: Path) -> None:
    forge(table, FORGERIES[message])
    with pytest.raises(VerificationError, match=message):
        verify_output(open_storage(table))


def drop_first_reject(table: Path) -> tuple[str, str]:
    """Remove the first reject of the first unit, update its record, and return the reject's source and reason."""
    path = table / "_codectok" / "rejects" / "000000.parquet"
    rejects = pq.read_table(path)
    pq.write_table(rejects.slice(1), path)
    update_record(table, path)
    return rejects["source"][0].as_py(), rejects["reason"][0].as_py()


def test_verify_finds_source_without_row_or_reject(table: Path) -> None:
    name, reason = drop_first_reject(table)
    with pytest.raises(VerificationError, match="do not agree with their record"):
        verify_output(open_storage(table))
    record_path = table / "_codectok" / "records" / "000000.json"
    record = json.loads(record_path.read_text())
    (counts,) = record["tallies"].values()
    counts["rejects"] = Counter(counts["rejects"]) - Counter([reason])
    record_path.write_text(json.dumps(record))
    with pytest.raises(VerificationError, match=f"{re.escape(name)} of the unit 0 of .* is neither a row nor"):
        verify_output(open_storage(table))


def test_verify_finds_damaged_rejects(table: Path) -> None:
    path = table / "_codectok" / "rejects" / "000000.parquet"
    path.write_bytes(b"PAR1 and no more")
    update_record(table, path)
    with pytest.raises(VerificationError, match=f"{path.name} are missing or damaged"):
        verify_output(open_storage(table))


def test_verify_recounts_statistics(table: Path) -> None:
    path = table / "_codectok" / "stats.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"hours": 1.0}))
    with pytest.raises(VerificationError, match="does not agree with the rows"):
        verify_output(open_storage(table))


def test_table_without_plan_is_verified(table: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bare"
    folder.mkdir()
    parts = sorted(table.glob("*.parquet"))
    for path in parts:
        shutil.copy(path, folder)
    verified = verify_output(open_storage(folder))
    assert (verified.units, verified.files) == (None, len(parts))
    assert (verified.rows, verified.seconds) == pytest.approx(
        (len(list(read_rows(table))), verify_output(open_storage(table)).seconds)
    )
    part = folder / "part-000000.parquet"
    whole = pq.read_table(part)
    pq.write_table(with_column("codes", lambda lists: [[1024, *lists[0][1:]], *lists[1:]])(whole), part)
    with pytest.raises(VerificationError, match="a code beyond 1023"):
        verify_output(open_storage(folder))
    pq.write_table(pa.concat_tables([whole, whole]), part)
    with pytest.raises(VerificationError, match="is also the id of a row"):
        verify_output(open_storage(folder))


def test_table_without_plan_may_have_added_columns(table: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bare"
    folder.mkdir()
    for path in table.glob("*.parquet"):
        rows = pq.read_table(path)
        pq.write_table(rows.add_column(2, "snr", pa.array([3.5] * len(rows))), folder / path.name)
    assert verify_output(open_storage(folder)).rows == len(list(read_rows(table)))
    last = max(folder.glob("*.parquet"))
    whole = pq.read_table(last)
    pq.write_table(whole.drop_columns("snr"), last)
    with pytest.raises(VerificationError, match=r"has other columns than part-000000\.parquet"):
        verify_output(open_storage(folder))
    pq.write_table(whole.drop_columns("text"), last)
    with pytest.raises(VerificationError, match="has other columns than a token table"):
        verify_output(open_storage(folder))


@pytest.mark.parametrize("name", ["stats.json", "codes/000000.parquet"])
def test_verify_finds_missing_statistics(name: str, table: Path) -> None:
    (table / "_codectok" / name).unlink()
    with pytest.raises(VerificationError):
        verify_output(open_storage(table))


def test_reencode_compares_codes_with_sources(table: Path, codec_folder: Path, tmp_path: Path) -> None:
    codec = Codec.from_pretrained(codec_folder, device="cpu")
    found = reencode(table, codec, 1000)
    rows = list(read_rows(table))
    assert (found.rows, found.frames, found.exact) == (len(rows), sum(len(row.codes) for row in rows), True)
    assert found.equal_frames == found.frames
    forge(table, with_column("codes", lambda lists: [[code ^ 1 for code in lists[0]], *lists[1:]]))
    with pytest.raises(VerificationError, match="has other codes than its source now"):
        reencode(table, codec, 1000)
    with pytest.raises(InputError, match="another codec"):
        reencode(table, Codec.from_config("nano", seed=9, device="cpu"), 1)


def say_another_device(table: Path) -> None:
    for path in table.glob("*.parquet"):
        rows = pq.read_table(path)
        metadata = TableMetadata.model_validate_json(rows.schema.metadata[METADATA_KEY])
        elsewhere = metadata.model_copy(update={"device": "NVIDIA H100"})
        pq.write_table(rows.replace_schema_metadata({METADATA_KEY: elsewhere.model_dump_json()}), path)


def replacing_code(row_id: str, frame: int, code: int) -> Callable[[pa.Table], pa.Table]:
    """Replace one code of a row."""

    def change(rows: pa.Table) -> pa.Table:
        lists = rows["codes"].to_pylist()
        lists[rows["id"].to_pylist().index(row_id)][frame] = code
        return with_column("codes", lambda _: lists)(rows)

    return change


@pytest.mark.parametrize("max_seconds", [None, 1.0])
def test_reencode_accepts_near_ties_of_another_device(
    max_seconds: float | None, corpus: Path, codec_folder: Path, tmp_path: Path
) -> None:
    """One code vector of the codec has a twin at a relative distance of 1e-6."""
    codec = Codec.from_pretrained(codec_folder, device="cpu")
    samples = read_audio(corpus / "a.wav", codec.sample_rate)
    code = int(codec.encode(samples, codec.sample_rate)[-5, 0])
    embedding = first_codebook(codec.network.quantizer).embedding
    twin, farthest = (code + 1) % len(embedding), int((embedding - embedding[code]).norm(dim=1).argmax())
    embedding[twin] = embedding[code] * (1 + 1e-6)
    codec.save_pretrained(tmp_path / "codec")
    codec = Codec.from_pretrained(tmp_path / "codec", device="cpu")
    table = tmp_path / "tokens"
    run(TokenizeJob(TokenizeOptions(str(tmp_path / "codec"), device="cpu", max_seconds=max_seconds)), corpus, table)
    row, frame = next(
        (row, int(np.flatnonzero(np.isin(row.codes[:, 0], (code, twin)))[0]))
        for row in read_rows(table / "part-000000.parquet")
        if np.isin(row.codes, (code, twin)).any()
    )
    found_code = int(row.codes[frame, 0])
    say_another_device(table)
    forge(table, replacing_code(row.id, frame, twin if found_code == code else code))
    found = reencode(table, codec, 1000)
    assert (found.frames - found.equal_frames, found.exact) == (1, False)
    forge(table, replacing_code(row.id, frame, farthest))
    with pytest.raises(VerificationError, match="in 1 of"):
        reencode(table, codec, 1000)


def test_decode_some_writes_wav_files(table: Path, codec_folder: Path, tmp_path: Path) -> None:
    codec = Codec.from_pretrained(codec_folder, device="cpu")
    paths = decode_some(table, codec, 3, tmp_path / "listen")
    assert len(paths) == 3
    assert all(len(read_audio(path, 24_000)) > 0 for path in paths)
    paths[0].write_bytes(b"")
    assert decode_some(table, codec, 3, tmp_path / "listen") == paths
    assert all(len(read_audio(path, 24_000)) > 0 for path in paths)
