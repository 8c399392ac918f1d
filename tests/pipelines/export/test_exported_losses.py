"""`--loss`: labels and positions of sequences, loss masks of Megatron, and trainers that read them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from codectok.errors import InputError, VerificationError
from codectok.exports.choices import Loss, Packing, TooLong
from codectok.exports.sequences.packing import PackingOptions
from codectok.pipelines.export.documents import MegatronJob, SequencesJob
from codectok.pipelines.verify.output import verify_output
from tests.helpers.exports import BEGIN, END, OFFSET, ROWS, VOCABULARY, export, options, sequences
from tests.helpers.jobs import rejects
from tests.helpers.megatron import read_indexed
from tests.helpers.records import update_record

PACKED = PackingOptions(Packing.NEXT_FIT, 160, TooLong.SPLIT)


@pytest.mark.parametrize("loss", Loss)
def test_labels_and_masks_agree_with_documents(loss: Loss, table: Path, tokenizer: Path, tmp_path: Path) -> None:
    settings = options(template="tts", tokenizer=str(tokenizer), packing=PACKED)
    with_loss = options(template="tts", tokenizer=str(tokenizer), packing=PACKED, loss=loss)
    export(SequencesJob(settings, [str(table)]), tmp_path / "plain")
    export(SequencesJob(with_loss, [str(table)]), tmp_path / "out")
    export(MegatronJob(with_loss, [str(table)]), tmp_path / "megatron")
    found = sequences(tmp_path / "out")
    plain = sequences(tmp_path / "plain")
    assert [{name: row[name] for name in plain[0]} for row in found] == plain
    masks = [mask for path in sorted((tmp_path / "megatron").glob("*_loss_mask.idx")) for mask in _mask_of(path)]
    n_learned = 0
    for row, mask in zip(found, masks, strict=True):
        firsts = np.cumsum([0, *row["lengths"]])[:-1]
        ids, labels = np.array(row["input_ids"]), np.array(row["labels"])
        assert row["position_ids"] == [place for length in row["lengths"] for place in range(length)]
        learned = np.ones(len(ids), bool)
        codes = (ids >= OFFSET) & (ids < OFFSET + VOCABULARY.n_codes)
        if loss != Loss.ALL:
            learned = codes | (ids == END)
        if loss == Loss.ANSWER:
            learned |= ids == 0  # the end of a sequence
        learned[firsts] = False
        np.testing.assert_array_equal(labels, np.where(learned, ids, -100))
        np.testing.assert_array_equal(mask, learned)
        assert not learned[ids == BEGIN].any() or loss == Loss.ALL
        n_learned += int(learned.sum())
    assert n_learned
    assert verify_output(tmp_path / "out").rows == verify_output(tmp_path / "megatron").rows
    lines = (tmp_path / "megatron" / "data-paths.txt").read_text().splitlines()
    assert [line.split()[1] for line in lines] == [path.stem for path in sorted(tmp_path.glob("out/part-*.parquet"))]


@pytest.mark.parametrize("too_long", [TooLong.TRUNCATE, TooLong.SPLIT])
@pytest.mark.parametrize("loss", [None, Loss.ANSWER])
def test_seconds_are_those_of_the_codes_that_are_left(
    too_long: TooLong, loss: Loss | None, table: Path, tokenizer: Path, tmp_path: Path
) -> None:
    packing = PackingOptions(Packing.NONE, 40, too_long)
    settings = options(template="tts", tokenizer=str(tokenizer), packing=packing, loss=loss)
    counts = export(SequencesJob(settings, [str(table)]), tmp_path / "out").summary.total
    ids = np.concatenate([row["input_ids"] for row in sequences(tmp_path / "out")])
    codes = (ids >= OFFSET) & (ids < OFFSET + VOCABULARY.n_codes)
    assert counts.seconds == pytest.approx(codes.sum() / 100)  # 100 codes a second
    rejected = counts.reject_seconds.get("filtered", 0.0) + counts.reject_seconds.get("too_long", 0.0)
    if too_long == TooLong.SPLIT:
        assert counts.seconds + rejected == pytest.approx(counts.input_seconds)
        assert "too_long" not in counts.rejects
        messages = {one["message"] for one in rejects(tmp_path / "out")}
        assert ("Nothing in it is learned." in messages) == (loss is not None)
    else:
        whole = export(SequencesJob(replace(settings, packing=PackingOptions()), [str(table)]), tmp_path / "whole")
        assert 0 < counts.seconds < sum(row.duration for row in ROWS if row.text is not None) / 2
        assert counts.unused["truncated_tokens"]["tts"].count == whole.summary.total.codes - counts.codes


def test_text_of_a_table_has_no_seconds(table: Path, tokenizer: Path, tmp_path: Path) -> None:
    settings = options(
        template="text", tokenizer=str(tokenizer), packing=PackingOptions(Packing.NONE, 3, TooLong.SPLIT)
    )
    counts = export(SequencesJob(settings, [str(table)]), tmp_path / "out").summary.total
    assert counts.seconds == 0 < counts.rows


def _mask_of(index: Path) -> list[list[int]]:
    read = read_indexed(index.with_suffix(""))
    assert read.dtype == "u1"
    return read.sequences


def test_output_without_loss_is_not_continued_with_one(table: Path, tmp_path: Path) -> None:
    export(SequencesJob(options(), [str(table)]), tmp_path / "out")
    with pytest.raises(InputError, match="loss was not given and is all"):
        export(SequencesJob(options(loss=Loss.ALL), [str(table)]), tmp_path / "out")


def _with(column: str, values: Callable[[dict[str, Any]], list[int]]) -> Callable[[pa.Table], pa.Table]:
    def change(table: pa.Table) -> pa.Table:
        rows = table.to_pylist()
        rows[1][column] = values(rows[1])
        return pa.Table.from_pylist(rows, table.schema)

    return change


FORGERIES: dict[str, tuple[Callable[[pa.Table], pa.Table], str]] = {
    "a label": (_with("labels", lambda row: [*row["labels"][:-1], 3]), "neither -100 nor the id"),
    "the first label": (_with("labels", lambda row: [row["input_ids"][0], *row["labels"][1:]]), "neither -100 nor"),
    "a label less": (_with("labels", lambda row: row["labels"][:-1]), "labels are not as many"),
    "a position": (_with("position_ids", lambda row: [1, *row["position_ids"][1:]]), "begin at 0"),
    "no labels": (lambda table: table.drop_columns(["labels"]), "cannot be read"),
}


@pytest.fixture(scope="module")
def learned(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("learned")
    settings = options(packing=PACKED, loss=Loss.ANSWER)
    export(SequencesJob(settings, [str(table)]), out / "sequences")
    export(MegatronJob(settings, [str(table)]), out / "megatron")
    return out


@pytest.mark.parametrize("forgery", FORGERIES)
def test_verify_finds_wrong_labels(forgery: str, learned: Path) -> None:
    change, message = FORGERIES[forgery]
    _refused(
        learned / "sequences",
        "part-000000.parquet",
        message,
        lambda path: pq.write_table(change(pq.read_table(path)), path),
    )


def test_verify_finds_wrong_loss_mask(learned: Path) -> None:
    out = learned / "megatron"
    _refused(
        out, "part-000000_loss_mask.bin", "the value 2", lambda path: path.write_bytes(b"\2" + path.read_bytes()[1:])
    )
    _refused(
        out,
        "part-000000_loss_mask.bin",
        "first id of a document",
        lambda path: path.write_bytes(b"\1" + path.read_bytes()[1:]),
    )
    _refused(
        out,
        "part-000000_loss_mask.idx",
        "other lengths|does not match",
        lambda path: path.write_bytes((out / "part-000001_loss_mask.idx").read_bytes()),
    )


def _refused(out: Path, name: str, message: str, change: Callable[[Path], Any]) -> None:
    """Check that `verify` fails even if the record agrees with the changed file, and mend it."""
    path = out / name
    before = path.read_bytes()
    change(path)
    update_record(out, path)
    with pytest.raises(VerificationError, match=message):
        verify_output(out)
    path.write_bytes(before)
    update_record(out, path)
    verify_output(out)
