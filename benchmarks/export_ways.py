"""The ways that `export.py` compares: exports of codectok, a script over JSON lines, and `datasets.map`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from export_inputs import CODEBOOK, OFFSET, Inputs

from codectok.exports.choices import Packing
from codectok.exports.sequences.packing import PackingOptions
from codectok.pipelines.engine.options import RunOptions
from codectok.pipelines.engine.run import run_job
from codectok.pipelines.export.documents import MegatronJob, SequencesJob
from codectok.pipelines.export.options import DocumentOptions

LENGTH = 8_192
OURS = {"export sequences": SequencesJob, "export megatron": MegatronJob}


def options_of(inputs: Inputs, task: str) -> DocumentOptions:
    """Options of both exports."""
    packing = PackingOptions(Packing.NEXT_FIT, LENGTH)
    tokenizer = str(inputs.tokenizer) if task == "tts" else None
    return DocumentOptions(task, tokenizer=tokenizer, offset=OFFSET, end_of_sequence="0", packing=packing)


def ours(inputs: Inputs, task: str, name: str, output: Path) -> float:
    """Run an export in this process, and return the share of its time that units take."""
    made = OURS[name](options_of(inputs, task), [str(inputs.table)])
    timing = run_job(made, [str(inputs.table)], output, RunOptions("local")).timing
    assert timing is not None
    return timing.command["units"] / timing.wall


def marks_of(inputs: Inputs) -> tuple[int, int, int]:
    """Ids that begin and end audio, and the end of a sequence."""
    return OFFSET + CODEBOOK, OFFSET + CODEBOOK + 1, 0


def documents_of_lines(inputs: Inputs, task: str) -> Iterator[list[int]]:
    """The script's documents: parse each line, and add marks to its list of ids."""
    begin, end, end_of_sequence = marks_of(inputs)
    tokenizer = None
    if task == "tts":
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(inputs.tokenizer)
    with inputs.lines.open() as file:
        for line in file:
            row = json.loads(line)
            ids = [] if tokenizer is None else tokenizer.encode(row["text"], add_special_tokens=False)
            ids = [*ids, begin]
            for token in row["audio_token"]:
                ids.append(token)
            ids += [end, end_of_sequence]
            yield ids


def sequences_of_lines(inputs: Inputs, task: str) -> Iterator[list[int]]:
    """The script's sequences: fill a list until a document does not fit."""
    sequence: list[int] = []
    for ids in documents_of_lines(inputs, task):
        if len(ids) > LENGTH:
            continue
        if len(sequence) + len(ids) > LENGTH:
            yield sequence
            sequence = []
        sequence.extend(ids)
    yield sequence


def script_to_binary(inputs: Inputs, task: str, output: Path) -> None:
    """Write ids and lengths as arrays, a sequence at a time."""
    output.mkdir(parents=True)
    lengths = []
    with (output / "ids.bin").open("wb") as file:
        for sequence in sequences_of_lines(inputs, task):
            file.write(np.array(sequence, np.int32).tobytes())
            lengths.append(len(sequence))
    np.array(lengths, np.int32).tofile(output / "lengths.bin")


def script_to_parquet(inputs: Inputs, task: str, output: Path) -> None:
    """Collect all sequences, and write them as Parquet."""
    output.mkdir(parents=True)
    sequences = pa.array(list(sequences_of_lines(inputs, task)), pa.list_(pa.int32()))
    pq.write_table(pa.table({"input_ids": sequences}), output / "part.parquet", compression="zstd")


@cache
def rows_of(inputs: Inputs) -> Any:
    """Convert the table to Arrow; the warm-up does it."""
    import datasets

    datasets.disable_progress_bars()
    files = sorted(str(path) for path in inputs.table.iterdir())
    rows = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(inputs.cache))
    datasets.disable_caching()
    return rows


def map_datasets(inputs: Inputs, task: str, output: Path) -> None:
    """Add offset and marks in one map, pack in a second one, and write Parquet."""
    begin, end, end_of_sequence = marks_of(inputs)
    tokenizer = None
    if task == "tts":
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(inputs.tokenizer)

    def add_marks(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        texts = [[]] * len(batch["codes"])
        if tokenizer is not None:
            texts = tokenizer(batch["text"], add_special_tokens=False)["input_ids"]
        found = []
        for text, codes in zip(texts, batch["codes"], strict=True):
            ids = np.asarray(codes, np.int32) + OFFSET
            found.append(np.concatenate([np.asarray(text, np.int32), [begin], ids, [end, end_of_sequence]]))
        return {"input_ids": found}

    def pack(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        sequences: list[list[int]] = [[]]
        for ids in batch["input_ids"]:
            if len(sequences[-1]) + len(ids) > LENGTH:
                sequences.append([])
            sequences[-1].extend(ids)
        return {"input_ids": sequences}

    output.mkdir(parents=True)
    rows = rows_of(inputs)
    marked = rows.map(add_marks, batched=True, remove_columns=rows.column_names)
    marked.map(pack, batched=True).to_parquet(output / "part.parquet")
