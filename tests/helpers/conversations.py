"""Conversations about the rows of the test table, and their export."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from codectok.pipelines.engine.options import RunOptions
from codectok.pipelines.engine.run import JobReport, run_job
from codectok.pipelines.export.chat import ChatDocuments, ChatMegatronJob, ChatOptions, ChatSequencesJob
from tests.helpers.exports import OFFSET, ROWS, SMALL_PARTS
from tests.helpers.jobs import LOCAL
from tests.helpers.megatron import read_indexed

JOBS = (ChatSequencesJob, ChatMegatronJob)


def asked(question: str, answer: str, name: str = "x") -> dict[str, Any]:
    """A spoken question and a spoken answer."""
    question_parts = [{"type": "audio", "id": question}, {"type": "text", "text": "say"}]
    answer_parts = [{"type": "text", "text": "yes"}, {"type": "audio", "id": answer}]
    return {
        "id": name,
        "messages": [{"role": "user", "content": question_parts}, {"role": "assistant", "content": answer_parts}],
    }


TALKS = [asked(f"c{n:03d}", f"c{n * 7 % 83:03d}", f"t{n}") for n in range(60)]


def write_talks(path: Path, talks: list[Any]) -> Path:
    path.write_text("".join(json.dumps(talk) + "\n" for talk in talks))
    return path


def settings(instruct: Path, **values: Any) -> ChatOptions:
    return ChatOptions(**{"tokenizer": str(instruct), "offset": OFFSET, "part_megabytes": SMALL_PARTS, **values})


def export(job: ChatDocuments, output: Path, options: RunOptions = LOCAL) -> JobReport:
    return run_job(job, job.sources.arguments, output, options)


def ids_of(name: str) -> list[int]:
    return (OFFSET + next(row for row in ROWS if row.id == name).codes[:, 0]).tolist()


def megatron_sequences(output: Path, end: str = "") -> list[list[int]]:
    """Sequences of all parts; those of the loss masks with `end` "_loss_mask"."""
    prefixes = [line.split()[1] for line in (output / "data-paths.txt").read_text().splitlines()]
    return [list(one) for prefix in prefixes for one in read_indexed(output / f"{prefix}{end}").sequences]
