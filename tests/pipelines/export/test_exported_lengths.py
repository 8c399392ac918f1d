"""Documents go to the shortest output that holds them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from codectok import InputError
from codectok.exports.choices import Loss, Packing, TooLong
from codectok.exports.sequences.packing import PackingOptions
from codectok.pipelines.engine.options import RunOptions
from codectok.pipelines.export.documents import MegatronJob, SequencesJob
from codectok.pipelines.verify.output import verify_output
from tests.helpers.exports import ROWS, export, options, sequences
from tests.helpers.jobs import LOCAL, digests, rejects
from tests.helpers.megatron import read_indexed

LENGTHS = (60, 90)
MARKS = 3  # around the codes of a row, and the end of a sequence


def settings(**values: Any) -> Any:
    packing = PackingOptions(values.pop("packing", Packing.NEXT_FIT), 90, values.pop("too_long", TooLong.DROP))
    return options(packing=packing, shorter_lengths=(60,), **values)


@pytest.mark.parametrize("packing", Packing)
def test_documents_go_to_the_shortest_length_that_holds_them(packing: Packing, table: Path, tmp_path: Path) -> None:
    export(SequencesJob(settings(packing=packing), [str(table)]), tmp_path / "out")
    sizes = {row.id: len(row.codes) + MARKS for row in ROWS}
    for shorter, length in ((0, 60), (60, 90)):
        found = sequences(tmp_path / "out" / f"length-{length}")
        ids = [one for row in found for one in row["ids"]]
        assert sorted(ids) == [name for name, size in sizes.items() if shorter < size <= length]
        assert all(len(row["input_ids"]) <= length for row in found)
        assert [sizes[one] for one in ids] == [one for row in found for one in row["lengths"]]
    assert [one["source"] for one in rejects(tmp_path / "out")] == [name for name, size in sizes.items() if size > 90]
    assert verify_output(tmp_path / "out").rows == sum(size <= 90 for size in sizes.values())
    assert not list((tmp_path / "out").glob("part-*"))


def test_longer_documents_are_kept_in_the_longest(table: Path, tmp_path: Path) -> None:
    export(SequencesJob(settings(too_long=TooLong.KEEP), [str(table)]), tmp_path / "out")
    found = sequences(tmp_path / "out" / "length-90")
    assert max(len(row["input_ids"]) for row in found) == max(len(row.codes) for row in ROWS) + MARKS
    verify_output(tmp_path / "out")


def test_each_length_has_its_list_of_prefixes(table: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export(MegatronJob(settings(loss=Loss.ALL), [str(table)]), out)
    total = verify_output(out)
    n_tokens = 0
    for length in LENGTHS:
        for line in (out / f"data-paths-{length}.txt").read_text().splitlines():
            tokens, prefix = line.split()
            read = read_indexed(out / prefix)
            assert prefix.startswith(f"length-{length}/part-")
            assert int(tokens) == sum(map(len, read.sequences))
            assert [len(one) for one in read_indexed(out / f"{prefix}_loss_mask").sequences] == [
                len(one) for one in read.sequences
            ]
            n_tokens += int(tokens)
    assert total.rows == sum(len(row.codes) + MARKS <= 90 for row in ROWS)
    assert n_tokens == sum(len(row.codes) + MARKS for row in ROWS if len(row.codes) + MARKS <= 90)


def test_resumed_lengths_equal_uninterrupted_ones(table: Path, tmp_path: Path) -> None:
    """Also if a stopped run left files of a unit behind."""
    job = MegatronJob(settings(loss=Loss.ALL), [str(table)])
    export(job, tmp_path / "whole")
    export(job, tmp_path / "out", RunOptions("local", limit=2))
    (tmp_path / "out" / "length-60" / "part-000003.idx").write_bytes(b"left behind")
    (tmp_path / "out" / "part-000003_loss_mask.bin").write_bytes(b"left behind")
    export(job, tmp_path / "out", LOCAL)
    assert digests(tmp_path / "out") == digests(tmp_path / "whole")
    verify_output(tmp_path / "out")


@pytest.mark.parametrize(("length", "shorter", "message"), [(90, (90,), "same --length"), (None, (9,), "at least 1")])
def test_impossible_lengths_are_refused(length: int | None, shorter: tuple[int, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        options(packing=PackingOptions(Packing.NONE, length), shorter_lengths=shorter)
