"""The list of documents beside each Megatron prefix leads from a place in the ids back to a clip."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from codectok.errors import VerificationError
from codectok.exports.choices import Packing, TooLong
from codectok.exports.sequences.packing import PackingOptions
from codectok.pipelines.export.documents import MegatronJob, SequencesJob
from codectok.pipelines.verify.output import verify_output
from tests.helpers.exports import OFFSET, ROWS, VOCABULARY, export, options, sequences
from tests.helpers.megatron import read_indexed
from tests.helpers.records import update_record

PACKINGS = {
    "none": PackingOptions(),
    "next-fit": PackingOptions(Packing.NEXT_FIT, 200),
    "split": PackingOptions(Packing.NEXT_FIT, 70, TooLong.SPLIT),
}


def listed(output: Path) -> list[dict[str, Any]]:
    """Rows of all lists, with the ids of each document as its sequence in the `.bin` file has them."""
    found = []
    for path in sorted(output.glob("*.idx")):
        stored = np.concatenate([np.array(ids) for ids in read_indexed(path.with_suffix("")).sequences])
        for row in pq.read_table(path.with_suffix(".parquet")).to_pylist():
            found.append({**row, "part": path.stem, "stored": stored[row["start"] : row["start"] + row["length"]]})
    return found


@pytest.mark.parametrize("packing", PACKINGS)
def test_sidecar_leads_from_ids_to_clips(packing: str, table: Path, tmp_path: Path) -> None:
    export(MegatronJob(options(packing=PACKINGS[packing]), [str(table)]), tmp_path / "out")
    rows = {row.id: row for row in ROWS}
    found = listed(tmp_path / "out")
    codes: dict[str, list[int]] = {}
    for document in found:
        (clip,) = document["ids"]
        assert (document["dataset"], document["source"]) == ("tokens", rows[clip].source)
        own = [one for one in document["stored"].tolist() if OFFSET <= one < OFFSET + VOCABULARY.n_codes]
        codes.setdefault(clip, []).extend(one - OFFSET for one in own)
    assert codes == {row.id: row.codes[:, 0].tolist() for row in ROWS}
    export(SequencesJob(options(packing=PACKINGS[packing]), [str(table)]), tmp_path / "sequences")
    groups: dict[tuple[str, int], list[int]] = {}
    for document in found:
        groups.setdefault((document["part"], document["document"]), []).append(document["length"])
    assert list(groups.values()) == [row["lengths"] for row in sequences(tmp_path / "sequences")]
    assert verify_output(tmp_path / "out").rows == len(found)


def test_sidecar_names_all_clips_of_a_recording_and_texts(
    table: Path, tokenizer: Path, books: Path, tmp_path: Path
) -> None:
    settings = options(template="interleaved", tokenizer=str(tokenizer))
    export(MegatronJob(settings, [str(table)], [str(books)]), tmp_path / "out")
    found = listed(tmp_path / "out")
    with_text = [row.id for row in ROWS if row.text]
    assert [clip for one in found if one["dataset"] == "tokens" for clip in one["ids"]] == with_text
    texts = [one for one in found if one["dataset"] == "books"]
    assert sorted(clip for one in texts for clip in one["ids"]) == sorted(f"p{n}" for n in range(400))
    assert {one["source"] for one in texts} == {None}


def changed(column: str, value: Any, place: int = -1) -> Callable[[pa.Table], pa.Table]:
    def change(table: pa.Table) -> pa.Table:
        rows = table.to_pylist()
        rows[place][column] = value
        return pa.Table.from_pylist(rows, table.schema)

    return change


FORGERIES: dict[str, tuple[Callable[[pa.Table], pa.Table], str]] = {
    "a number": (changed("document", 10_000), "in order"),
    "a start": (changed("start", 3), "in order"),
    "the first number": (changed("document", -1, 0), "in order|does not have"),
    "a length": (changed("length", 1), "in order|other lengths"),
    "a dataset": (changed("dataset", "other"), "other datasets"),
    "no ids": (changed("ids", []), "without the id"),
    "a row less": (lambda table: table.slice(0, len(table) - 1), "other lengths"),
    "no row": (lambda table: table.slice(0, 0), "other lengths"),
    "no description": (lambda table: table.replace_schema_metadata(None), "no description"),
    "another format": (
        lambda table: table.replace_schema_metadata(
            {b"codectok": table.schema.metadata[b"codectok"].replace(b"codectok.documents", b"codectok.sequences")}
        ),
        "format codectok.sequences",
    ),
    "a column less": (lambda table: table.drop_columns(["source"]), "other columns"),
}


@pytest.fixture(scope="module")
def exported(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("megatron") / "out"
    export(MegatronJob(options(packing=PACKINGS["next-fit"]), [str(table)]), out)
    return out


@pytest.mark.parametrize("forgery", FORGERIES)
def test_verify_finds_inconsistent_sidecar(forgery: str, exported: Path) -> None:
    change, message = FORGERIES[forgery]
    path = exported / "part-000000.parquet"
    before = path.read_bytes()
    pq.write_table(change(pq.read_table(path)), path)
    update_record(exported, path)
    with pytest.raises(VerificationError, match=message):
        verify_output(exported)
    path.write_bytes(before)
    update_record(exported, path)
    verify_output(exported)
