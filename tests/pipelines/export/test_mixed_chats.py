"""Mixtures of conversations by weight: shares, counts, parts that are added."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from codectok.pipelines.engine.planning import cutting
from codectok.pipelines.export.chat import ChatDocuments, ChatMegatronJob, ChatSequencesJob
from codectok.pipelines.verify.output import verify_output
from codectok.storage import open_storage
from tests.helpers.command_line import assert_refused, codectok
from tests.helpers.conversations import JOBS, TALKS, asked, export, megatron_sequences, settings, write_talks
from tests.helpers.exports import OFFSET, sequences
from tests.helpers.jobs import LOCAL


def test_weights_mix_conversations(instruct: Path, talks: Path, table: Path, tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    other = write_talks(tmp_path / "b" / "other.jsonl", TALKS)
    weighted = settings(instruct, weights={"talks": 1.0, "other": 3.0}, part_megabytes=1.0)
    export(ChatSequencesJob(weighted, [str(talks), str(other)], [str(table)]), tmp_path / "out")
    found = sequences(tmp_path / "out")
    tokens = {
        name: sum(sum(row["lengths"]) for row in found if row["datasets"] == [name]) for name in weighted.weights or ()
    }
    assert tokens["other"] / tokens["talks"] == pytest.approx(3, rel=0.2)


def test_command_mixes_conversations_by_weight(instruct: Path, talks: Path, table: Path, tmp_path: Path) -> None:
    write_talks(tmp_path / "few.jsonl", [asked("c001", "c002", f"f{n}") for n in range(5)])
    arguments = ["export", "chat", f"many={talks}", tmp_path / "few.jsonl", tmp_path / "out", "--tokens", table]
    options = ["--tokenizer", instruct, "--offset", OFFSET, "--engine", "local"]
    codectok(*arguments, *options, "--weight", "many=1", "--weight", "few=1", "--until", "last")
    tokens: dict[str, int] = {"many": 0, "few": 0}
    longest = 0
    for row in sequences(tmp_path / "out"):
        tokens[row["datasets"][0]] += len(row["input_ids"])
        longest = max(longest, len(row["input_ids"]))
    assert abs(tokens["many"] - tokens["few"]) <= longest
    names = [row["ids"][0] for row in sequences(tmp_path / "out")]
    assert {f"t{n}" for n in range(60)} <= set(names) and names.count("f0") > 1, "the small one is repeated"
    verify_output(open_storage(tmp_path / "out"))
    other = [*arguments[:4], tmp_path / "other", *arguments[5:], *options]
    assert_refused(codectok(*other, "--weight", "many=1"), "few has no weight")
    assert_refused(codectok(*other, "--until", "last"), "--until needs a mixture")


def test_mixture_of_conversations_counts_those_that_it_draws(
    instruct: Path, talks: Path, table: Path, tmp_path: Path
) -> None:
    write_talks(tmp_path / "few.jsonl", [asked("c001", "c002", f"f{n}") for n in range(5)])
    mixed = settings(instruct, weights={"many": 1.0, "few": 1.0}, part_megabytes=32.0)
    job = ChatSequencesJob(mixed, [f"many={talks}", f"few={tmp_path / 'few.jsonl'}"], [str(table)])
    counts = export(job, tmp_path / "out").summary.datasets
    assert counts["few"].inputs == counts["few"].rows == 5
    # One was drawn, and then left, because its source was not the first to end.
    assert counts["many"].rows <= counts["many"].inputs <= counts["many"].rows + 1 < 10


def test_every_part_of_a_mixture_keeps_its_weights(
    instruct: Path, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In both formats, and in parts that `--extend` adds."""
    monkeypatch.setattr(cutting, "LEAST_SHARE", 1)
    weights = {"many": 1.0, "few": 1.0}
    for name, count in (("many", 40), ("few", 20)):
        (tmp_path / name).mkdir()
        write_talks(tmp_path / name / "0.jsonl", [{**talk, "id": f"{name}{n}"} for n, talk in enumerate(TALKS[:count])])

    def make(made: type[ChatSequencesJob | ChatMegatronJob], **values: Any) -> ChatDocuments:
        mixed = settings(instruct, weights=weights, until="last", part_megabytes=0.008, **values)
        return made(mixed, [f"{name}={tmp_path / name}" for name in weights], [str(table)])

    def exported_parts() -> list[list[dict[str, Any]]]:
        parts = [pq.read_table(path).to_pylist() for path in sorted((tmp_path / "ChatSequencesJob").glob("*.parquet"))]
        for part in parts:
            tokens = Counter({row["datasets"][0]: 0 for row in part})
            for row in part:
                tokens[row["datasets"][0]] += len(row["input_ids"])
            assert abs(tokens["many"] - tokens["few"]) <= max(len(row["input_ids"]) for row in part)
        assert megatron_sequences(tmp_path / "ChatMegatronJob") == [row["input_ids"] for part in parts for row in part]
        return parts

    for made in JOBS:
        export(make(made), tmp_path / made.__name__)
    before = exported_parts()
    assert len(before) > 1
    assert {row["ids"][0] for part in before for row in part} >= {f"many{n}" for n in range(40)}
    for name in weights:
        write_talks(tmp_path / name / "1.jsonl", [{**talk, "id": f"{name}-new{n}"} for n, talk in enumerate(TALKS)])
    for made in JOBS:
        export(make(made), tmp_path / made.__name__, replace(LOCAL, extend=True))
        verify_output(open_storage(tmp_path / made.__name__))
    after = exported_parts()
    assert after[: len(before)] == before and len(after) > len(before)
    assert {row["ids"][0] for part in after for row in part} >= {
        f"{name}-new{n}" for name in weights for n in range(60)
    }
