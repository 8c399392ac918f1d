"""Job `import codes`: codes of other programs become a token table, each row exactly once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from codectok import CodectokError, InputError
from codectok.cli.main import app
from codectok.errors import VerificationError
from codectok.exports.choices import UnittsStyle, UnittsTask
from codectok.loading import load_codec
from codectok.pipelines.engine.options import RunOptions
from codectok.pipelines.engine.run import JobReport, run_job
from codectok.pipelines.export.documents import SequencesJob
from codectok.pipelines.export.options import DocumentOptions
from codectok.pipelines.export.unitts import UnittsJob, UnittsOptions
from codectok.pipelines.imports.job import ImportCodesJob
from codectok.pipelines.imports.options import ImportOptions
from codectok.pipelines.verify.output import verify_output
from codectok.tokens.imports.rows import FieldNames
from codectok.tokens.reader import open_table
from codectok.tokens.table import TableMetadata, TokenRow, read_metadata, read_rows
from tests.helpers.foreign_codes import write_json, write_npy, write_parquet
from tests.helpers.jobs import LOCAL, digests, rejects
from tests.helpers.records import update_record
from tests.helpers.tables import write

SMALL = 0.004  # MB of a part


@pytest.fixture(scope="module")
def described(codec_folder: Path) -> TableMetadata:
    return TableMetadata.of(load_codec(codec_folder, device="cpu").describe())


@pytest.fixture(scope="module")
def made(described: TableMetadata) -> list[TokenRow]:
    generator = np.random.default_rng(0)
    shape = (described.n_codebooks, described.codebook_size)
    return [_row(f"dir/clip{n:02d}", generator.integers(shape[1], size=(5 + n, shape[0]))) for n in range(40)]


def _row(name: str, codes: np.ndarray) -> TokenRow:
    n_samples = 256 * len(codes)
    return TokenRow(name, "a.wav", "d", 0.0, n_samples / 24_000, n_samples, codes, f"text of {name}")


def import_codes(
    codec: Path, sources: Sequence[Path], out: Path, options: RunOptions = LOCAL, **more: Any
) -> JobReport:
    job = ImportCodesJob(ImportOptions(str(codec), **{"part_megabytes": SMALL, **more}))
    return run_job(job, [str(source) for source in sources], out, options)


def codes_of(table: Path) -> dict[str, list[list[int]]]:
    return {row.id: row.codes.tolist() for row in read_rows(table)}


FORMS = ["npy", "npy transposed", "lines", "nested lines", "int64", "int32", "nested", "large", "table"]


def write_form(form: str, folder: Path, rows: list[TokenRow], described: TableMetadata) -> Path:
    folder.mkdir(parents=True)
    if form.startswith("npy"):
        return write_npy(folder, rows, transposed=form.endswith("transposed"))
    if form.endswith("lines"):
        return write_json(folder / "codes.jsonl", rows, nested=form.startswith("nested"))
    if form == "table":
        write(folder / "part-000000.parquet", rows, described)
        return folder
    kinds = {
        "int64": pa.list_(pa.int64()),
        "int32": pa.list_(pa.int32()),
        "nested": pa.list_(pa.list_(pa.int32())),
        "large": pa.large_list(pa.large_list(pa.int64())),
    }
    return write_parquet(folder / "codes.parquet", rows, kinds[form])


@pytest.mark.parametrize("form", FORMS)
def test_imported_codes_equal_written_ones(
    form: str, made: list[TokenRow], described: TableMetadata, codec_folder: Path, tmp_path: Path
) -> None:
    source = write_form(form, tmp_path / "theirs", made, described)
    report = import_codes(codec_folder, [source], tmp_path / "out")
    assert report.summary.units > 1
    assert codes_of(tmp_path / "out") == {row.id: row.codes.tolist() for row in made}
    found = {row.id: row for row in read_rows(tmp_path / "out")}
    for row in made:
        imported = found[row.id]
        assert (imported.n_samples, imported.duration) == (row.n_samples, row.duration)
        assert imported.text == (None if form.startswith("npy") else row.text)
    metadata = read_metadata(tmp_path / "out")
    assert metadata.codec_fingerprint == described.codec_fingerprint
    assert (metadata.dtype, metadata.device) == ("unknown", "unknown")
    assert verify_output(tmp_path / "out").rows == len(made)


def test_own_unitts_export_returns_original_codes(
    made: list[TokenRow], described: TableMetadata, codec_folder: Path, tmp_path: Path
) -> None:
    write(tmp_path / "tokens" / "part-000000.parquet", made, described)
    for offset in (None, 1000):
        out = tmp_path / str(offset)
        own = 152_064 if offset is None else offset
        unitts = UnittsJob(UnittsOptions(UnittsTask.AUDIO, UnittsStyle.AUDIO_JSON, own), [str(tmp_path / "tokens")])
        run_job(unitts, unitts.sources.arguments, out / "unitts", LOCAL)
        import_codes(codec_folder, [out / "unitts"], out / "table", offset=offset)
        imported = list(read_rows(out / "table"))
        assert sorted(row.codes.tolist() for row in imported) == sorted(row.codes.tolist() for row in made)
        assert json.loads(imported[0].extra or "")["audio_path"] == "a.wav"
        assert verify_output(out / "table").rows == len(made)


def test_imported_table_is_read_like_any_other(made: list[TokenRow], codec_folder: Path, tmp_path: Path) -> None:
    import_codes(codec_folder, [write_npy(tmp_path / "theirs", made)], tmp_path / "out")
    assert len(open_table(tmp_path / "out")) == len(made)
    assert {row["id"] for row in open_table(tmp_path / "out").to_torch_dataset()} == {row.id for row in made}
    job = SequencesJob(DocumentOptions(), [str(tmp_path / "out")])
    assert run_job(job, job.sources.arguments, tmp_path / "sequences", LOCAL).summary.total.rows == len(made)
    for verb in (["inspect"], ["verify"]):
        result = CliRunner().invoke(app, [*verb, str(tmp_path / "out")])
        assert result.exit_code == 0, result.output


def test_wrong_rows_are_rejects_with_reasons(described: TableMetadata, codec_folder: Path, tmp_path: Path) -> None:
    size = described.codebook_size
    values: dict[str, tuple[Any, str, str]] = {
        "beyond": ([1, size], "invalid_row", f"code {size}"),
        "negative": ([1, -1], "invalid_row", "code -1"),
        "ragged": ([[1], [1, 2]], "invalid_row", "differ in length"),
        "mixed": ([[1], 2], "invalid_row", "differ in length"),
        "empty": ([], "empty", "no codes"),
        "hollow": ([[], []], "empty", "no codes"),
        "float": ([1.0, 2.0], "invalid_row", "float"),
        "text": (["<|s_1|>"], "invalid_row", "str"),
        "bool": ([True], "invalid_row", "bool"),
        "null": ([None], "invalid_row", "NoneType"),
        "huge": ([1 << 70], "invalid_row", "64 bits"),
        "deep": ([[[[1]]]], "invalid_row", "nested"),
        "other": (5, "invalid_row", "not a list"),
        "shape": ([[1] * 7] * 3, "invalid_row", "shape"),
    }
    lines = [json.dumps({"key": key, "tokens": value}) for key, (value, _, _) in values.items()]
    lines += ["nonsense", '"text"', '{"key": "none"}', "[" * 100_000, json.dumps({"key": "good", "tokens": [1, 2]})]
    (tmp_path / "codes.jsonl").write_text("\n".join(lines) + "\n")
    report = import_codes(codec_folder, [tmp_path / "codes.jsonl"], tmp_path / "out", part_megabytes=64.0)
    assert codes_of(tmp_path / "out") == {"good": [[1], [2]]}
    found = rejects(tmp_path / "out")
    assert report.summary.total.inputs == len(lines)
    assert len(found) == len(lines) - 1
    for reject, (_, reason, word) in zip(found, values.values(), strict=False):
        assert reject["reason"] == reason
        assert word in str(reject["message"]), reject
    assert {reject["reason"] for reject in found[-4:]} <= {"invalid_row", "unreadable"}
    assert verify_output(tmp_path / "out").rows == 1


def test_hostile_arrays_are_rejects(codec_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir()
    np.save(folder / "good.npy", np.array([1, 2, 3]))
    np.save(folder / "pickled.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    np.save(folder / "floats.npy", np.zeros(3))
    np.save(folder / "scalar.npy", np.array(3))
    np.savez(folder / "zip.npz", np.zeros(3))
    (folder / "zip.npz").rename(folder / "zip.npy")
    whole = (folder / "good.npy").read_bytes()
    (folder / "cut.npy").write_bytes(whole[:-1])
    (folder / "absurd.npy").write_bytes(whole.replace(b"(3,), }     ", b"(3" + b"0" * 5 + b",), }"))
    (folder / "header.npy").write_bytes(b"\x93NUMPY\x02\x00" + (1 << 30).to_bytes(4, "little") + b"{" * 1000)
    (folder / "nested.npy").write_bytes(b"\x93NUMPY\x01\x00" + (5000).to_bytes(2, "little") + b"(" * 5000)
    (folder / "none.npy").write_bytes(b"")
    (folder / "deep.audio").write_bytes(b'{"audio_token": ' + b"[" * 100_000)
    (folder / "other.audio").write_bytes(b'{"audio": [1]}\n')
    (folder / "none.audio").write_bytes(b"")
    (folder / "damaged.parquet").write_bytes(b"PAR1nonsensePAR1")
    pq.write_table(pa.table({"a": [1]}), folder / "columns.parquet")
    pq.write_table(pa.table({"codes": ["1 2"]}), folder / "strings.parquet")
    import_codes(codec_folder, [folder], tmp_path / "out")
    assert codes_of(tmp_path / "out") == {"good": [[1], [2], [3]]}
    found = {str(reject["source"]): reject for reject in rejects(tmp_path / "out")}
    assert found.keys() == {path.name for path in folder.iterdir()} - {"good.npy"}
    assert not [reject for reject in found.values() if reject["reason"] == "unexpected_error"]
    assert verify_output(tmp_path / "out").rows == 1


def test_repeated_keys_keep_the_first_row(made: list[TokenRow], codec_folder: Path, tmp_path: Path) -> None:
    wrong = replace(made[0], codes=np.full((3, 1), 1 << 20))
    again = [replace(row, codes=row.codes[:3]) for row in made[5:20]]
    (tmp_path / "theirs").mkdir()
    source = write_json(tmp_path / "theirs" / "codes.jsonl", [wrong, *made, *again, made[1]], nested=False)
    import_codes(codec_folder, [source], tmp_path / "out")
    assert codes_of(tmp_path / "out") == {row.id: row.codes.tolist() for row in made}
    found = rejects(tmp_path / "out")
    assert sorted(str(reject["reason"]) for reject in found) == ["duplicate"] * 16 + ["invalid_row"]
    assert verify_output(tmp_path / "out").rows == len(made)


@pytest.mark.parametrize("form", ["npy", "lines", "int64"])
def test_stopped_import_resumes_to_the_same_bytes(
    form: str, made: list[TokenRow], described: TableMetadata, codec_folder: Path, tmp_path: Path
) -> None:
    source = write_form(form, tmp_path / "theirs", [*made, *made[:5]] if form != "npy" else made, described)
    import_codes(codec_folder, [source], tmp_path / "whole")
    for _ in range(2):
        import_codes(codec_folder, [source], tmp_path / "parts", replace(LOCAL, limit=1))
    import_codes(codec_folder, [source], tmp_path / "parts")
    assert digests(tmp_path / "parts") == digests(tmp_path / "whole")
    assert import_codes(codec_folder, [source], tmp_path / "parts").new_units == 0


def test_extended_import_refuses_known_keys(made: list[TokenRow], codec_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir()
    write_json(folder / "b.jsonl", made[:10], nested=False)
    import_codes(codec_folder, [folder], tmp_path / "out")
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").glob("*.parquet")}
    write_json(folder / "a.jsonl", made[5:20], nested=True)
    import_codes(codec_folder, [folder], tmp_path / "out", replace(LOCAL, extend=True))
    assert codes_of(tmp_path / "out") == {row.id: row.codes.tolist() for row in made[:20]}
    assert all((tmp_path / "out" / name).read_bytes() == data for name, data in before.items())
    assert [reject["reason"] for reject in rejects(tmp_path / "out")] == ["duplicate"] * 5
    assert verify_output(tmp_path / "out").rows == 20


def test_fields_are_chosen_by_name(codec_folder: Path, tmp_path: Path) -> None:
    line = {"id": "one", "name": "two", "words": "yes", "text": "no", "q": [1], "tokens": [2], "speaker": "ann"}
    (tmp_path / "codes.jsonl").write_text(json.dumps(line))
    import_codes(codec_folder, [tmp_path / "codes.jsonl"], tmp_path / "out", names=FieldNames("q", "name", "words"))
    (row,) = read_rows(tmp_path / "out")
    assert (row.id, row.text, row.speaker, row.codes.tolist()) == ("two", "yes", "ann", [[1]])
    assert json.loads(row.extra or "") == {"other_id": "one", "other_text": "no", "tokens": [2]}


def test_changed_part_fails_verification(made: list[TokenRow], codec_folder: Path, tmp_path: Path) -> None:
    import_codes(codec_folder, [write_npy(tmp_path / "theirs", made)], tmp_path / "out", part_megabytes=64.0)
    (part,) = (tmp_path / "out").glob("*.parquet")
    metadata = read_metadata(part)
    kept = list(read_rows(part))
    write(part, [*kept[:-1], replace(kept[-1], source="other.npy")], metadata)
    update_record(tmp_path / "out", part)
    with pytest.raises(VerificationError, match="neither a row nor a reject"):
        verify_output(tmp_path / "out")


def test_import_command_makes_a_table(made: list[TokenRow], codec_folder: Path, tmp_path: Path) -> None:
    source = write_npy(tmp_path / "theirs", made[:3])
    arguments = ["import", "codes", f"mine={source}", str(tmp_path / "out"), "--codec", str(codec_folder)]
    result = CliRunner().invoke(app, [*arguments, "--engine", "local"])
    assert result.exit_code == 0, result.output
    assert {row.dataset for row in read_rows(tmp_path / "out")} == {"mine"}
    with pytest.raises(CodectokError):
        import_codes(codec_folder, [source], tmp_path / "out", offset=5)


def test_impossible_offset_is_an_error(codec_folder: Path) -> None:
    with pytest.raises(InputError, match="impossible"):
        ImportCodesJob(ImportOptions(str(codec_folder), offset=-1))
