"""A dry run counts what an export writes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from codectok import InputError
from codectok.exports.choices import Packing, TooLong
from codectok.exports.sequences.packing import PackingOptions
from codectok.pipelines.engine.lock import JobShare
from codectok.pipelines.engine.options import RunOptions
from codectok.pipelines.export.documents import SequencesJob
from codectok.pipelines.export.dry_run import preview_documents
from tests.helpers.exports import ROWS, export, options, sequences
from tests.helpers.jobs import LOCAL, rejects

CASES: dict[str, dict[str, Any]] = {
    "tts": {"template": "tts"},
    "patterns": {"template": "AT:1,TA:1"},
    "interleaved": {"template": "interleaved"},
    "packed": {"template": "asr", "packing": PackingOptions(Packing.FIRST_FIT, 60)},
    "truncated": {"template": "asr", "packing": PackingOptions(Packing.NEXT_FIT, 60, TooLong.TRUNCATE)},
    "lengths": {"packing": PackingOptions(Packing.NEXT_FIT, 90), "shorter_lengths": (60,)},
    "mixed": {"template": "tts", "weights": {"tokens": 1.0, "books": 1.0}, "part_megabytes": 100.0},
}


@pytest.mark.parametrize("case", CASES)
def test_dry_run_counts_the_output(case: str, table: Path, books: Path, tokenizer: Path, tmp_path: Path) -> None:
    job = SequencesJob(options(tokenizer=str(tokenizer), **CASES[case]), [str(table)], [str(books)])
    preview = preview_documents(job, job.sources.arguments, tmp_path / "out", LOCAL, sample=None)
    assert not (tmp_path / "out").exists()
    export(job, tmp_path / "out")
    made = [row for folder in job.settings.packings for row in sequences(tmp_path / "out" / folder)]
    tokens: Counter[str] = Counter()
    documents: Counter[str] = Counter()
    for row in made:
        documents.update(row["datasets"])
        for dataset, length in zip(row["datasets"], row["lengths"], strict=True):
            tokens[dataset] += length
    assert preview.sequences.total() == len(made)
    assert preview.sequence_tokens.total() == tokens.total()
    for dataset in ("tokens", "books"):
        counts = [counts for (source, _), counts in preview.counts.items() if source == dataset]
        assert sum(one.documents for one in counts) == documents[dataset]
        assert sum(one.tokens for one in counts) == tokens[dataset]
    left = Counter((one["dataset"], one["reason"]) for one in rejects(tmp_path / "out"))
    found: Counter[tuple[str, str]] = Counter()
    for (dataset, _, reason), times in preview.left_out.items():
        found[dataset, reason] += times
    assert found == left
    messages = {(one["dataset"], one["reason"], one["message"]) for one in rejects(tmp_path / "out")}
    assert {(dataset, reason, message) for (dataset, _, reason), message in preview.examples.items()} <= messages
    assert preview.examples.keys() == preview.left_out.keys()
    assert (preview.parts, preview.share) == (preview.all_parts, 1.0)
    truncated = sum(counts.truncated for counts in preview.counts.values())
    assert bool(truncated) == (case == "truncated")


def test_dry_run_names_patterns_and_tasks(table: Path, books: Path, tokenizer: Path, tmp_path: Path) -> None:
    settings = options(tokenizer=str(tokenizer), template="ATA", part_megabytes=100.0)
    job = SequencesJob(settings, [str(table)], [str(books)])
    preview = preview_documents(job, job.sources.arguments, tmp_path / "out", LOCAL)
    # Recordings of 5 rows, the last of them of 3. Every second recording ends in a row without text: a document of A.
    found = {pattern: counts.documents for (source, pattern), counts in preview.counts.items() if source == "tokens"}
    assert found.keys() == {"ATA", "AT", "alone", "A"}
    assert preview.counts["books", "text"].documents == 400
    assert preview.parts == preview.all_parts == 1


def test_dry_run_counts_what_each_pattern_leaves_out(table: Path, tokenizer: Path, tmp_path: Path) -> None:
    packing = PackingOptions(Packing.NEXT_FIT, 60)
    settings = options(tokenizer=str(tokenizer), template="A:1,TA:1", packing=packing, part_megabytes=100.0)
    job = SequencesJob(settings, [str(table)])
    preview = preview_documents(job, job.sources.arguments, tmp_path / "out", LOCAL)
    left = {(pattern, reason): times for (_, pattern, reason), times in preview.left_out.items()}
    # Only documents that begin with a text need one; audio that does not fit behind a text begins another document.
    assert left.keys() == {("A", "too_long"), ("TA", "filtered")}
    export(job, tmp_path / "out")
    assert sum(left.values()) == len(rejects(tmp_path / "out"))


def test_sample_reads_some_parts(table: Path, tmp_path: Path) -> None:
    job = SequencesJob(options(), [str(table)])
    counted: list[int] = []
    all_parts = preview_documents(job, job.sources.arguments, tmp_path, LOCAL, None, lambda: counted.append(1))
    assert len(counted) == all_parts.all_parts > 3
    some = preview_documents(job, job.sources.arguments, tmp_path, LOCAL, sample=2)
    assert some.parts == 2
    assert 0 < some.share < 1
    assert 0 < some.counts["tokens", "audio"].documents < len(ROWS) == all_parts.counts["tokens", "audio"].documents
    export(job, tmp_path / "out", RunOptions("local", limit=2))
    rest = preview_documents(job, job.sources.arguments, tmp_path / "out", LOCAL, None)
    assert rest.all_parts == all_parts.all_parts - 2
    export(job, tmp_path / "out")
    assert preview_documents(job, job.sources.arguments, tmp_path / "out", LOCAL, None).all_parts == 0
    half = RunOptions("local", part=JobShare.parse("1/2"))
    of_half = preview_documents(job, job.sources.arguments, tmp_path / "half", half, None)
    assert 0 < of_half.all_parts < all_parts.all_parts
    with pytest.raises(InputError, match="from 1 on"):
        preview_documents(job, job.sources.arguments, tmp_path / "none", LOCAL, sample=0)
