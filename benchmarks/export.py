"""Compares the speed of exports with a script over JSON lines and with `datasets.map`, and measures their memory.

Usage: python benchmarks/export.py [--tokens 8000000] [--rounds 3] [--large TOKENS --folder FOLDER] [--save]

All ways make the same ids of the same clips on one core: offset, marks around audio, end of sequence, and sequences of
8,192 tokens (next-fit). The script reads JSON lines, appends lists of Python, and writes an array; `datasets.map` reads
the token table (already converted to Arrow, which is not counted), adds offset and marks with numpy, packs in a second
map, and writes Parquet. It packs batches of 1,000 rows, so that its sequences end elsewhere; the ids are equal.
Each way has a process of its own, since the memory that one leaves behind would slow the next. Ratios compare
processor time, which other programs on the machine change least: an export beside the faster of the ways that write the
same form. `export megatron` writes a list of documents, too, which the others do not.

With --large, a table of TOKENS random codes, and one of half as many, are exported by the command line; the peak memory
of each export is shown.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import common
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from rich.table import Table

from codectok.exports.choices import Packing
from codectok.exports.sequences.packing import PackingOptions
from codectok.pipelines.engine.options import RunOptions
from codectok.pipelines.engine.run import run_job
from codectok.pipelines.export.documents import MegatronJob, SequencesJob
from codectok.pipelines.export.options import DocumentOptions
from codectok.tokens.table import TableMetadata, table_schema, table_writer

CODEBOOK, OFFSET, LENGTH = 32_768, 152_064, 8_192
ROWS_OF_A_GROUP, ROWS_OF_A_FILE = 6_000, 240_000
WORDS_OF_A_TEXT = 12
END_OF_TEXT = "<|endoftext|>"
OURS = {"export sequences": SequencesJob, "export megatron": MegatronJob}
# Ways that write the same form.
SAME_FORM = {
    "export sequences": ("script, to Parquet", "datasets.map, to Parquet"),
    "export megatron": ("script, to an array", "datasets.map, to Parquet"),
}
TASKS = ("audio", "tts")


@dataclass(frozen=True)
class Inputs:
    """The same clips as a token table and as JSON lines, a tokenizer with the tokens of codes, and a cache of Arrow."""

    table: Path
    lines: Path
    tokenizer: Path
    cache: Path


def metadata() -> TableMetadata:
    """Describe a codec with one codebook of 93.75 codes a second."""
    return TableMetadata(
        codec_name="benchmark", codec_fingerprint="0", codebook_size=CODEBOOK, n_codebooks=1, frame_rate=93.75,
        sample_rate=24_000, dtype="float32", device="cpu", pack_frames=4096,
    )  # fmt: skip


def batches_of_rows(n_tokens: int, generator: np.random.Generator) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield lengths of clips (500 to 899 codes), and their random codes, a row group at a time."""
    while n_tokens > 0:
        lengths = generator.integers(500, 900, ROWS_OF_A_GROUP)
        fitting = int(np.searchsorted(np.cumsum(lengths), n_tokens)) + 1
        lengths = lengths[:fitting]
        yield lengths, generator.integers(CODEBOOK, size=int(lengths.sum()), dtype=np.uint16)
        n_tokens -= int(lengths.sum())


def write_table(folder: Path, n_tokens: int, words: list[str] | None = None) -> int:
    """Write a token table of about `n_tokens` random codes, with texts of `words`; return the number of codes."""
    folder.mkdir(parents=True)
    schema, generator = table_schema(metadata()), np.random.default_rng(0)
    n_rows = n_codes = 0
    writer: pq.ParquetWriter | None = None
    for lengths, codes in batches_of_rows(n_tokens, generator):
        if writer is None or n_rows % ROWS_OF_A_FILE == 0:
            if writer is not None:
                writer.close()
            writer = table_writer(folder / f"part-{n_rows // ROWS_OF_A_FILE:06d}.parquet", schema)
        count = len(lengths)
        offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
        columns = {name: pa.nulls(count, schema.field(name).type) for name in schema.names}
        columns |= {
            "id": pa.array([f"clip-{number:09d}" for number in range(n_rows, n_rows + count)]),
            "source": pa.array([f"recording-{number // 10:08d}.flac" for number in range(n_rows, n_rows + count)]),
            "dataset": pa.array(["corpus"] * count, schema.field("dataset").type),
            "start": pa.array(np.zeros(count)),
            "duration": pa.array(lengths / 93.75),
            "n_samples": pa.array(lengths * 256),
            "codes": pa.ListArray.from_arrays(offsets, pa.array(codes), type=schema.field("codes").type),
            "n_frames": pa.array(lengths, pa.int32()),
        }
        if words is not None:
            texts = generator.choice(words, (count, WORDS_OF_A_TEXT))
            columns["text"] = pa.array([" ".join(text) for text in texts])
        writer.write_table(pa.Table.from_arrays([columns[name] for name in schema.names], schema=schema))
        n_rows, n_codes = n_rows + count, n_codes + len(codes)
    assert writer is not None
    writer.close()
    return n_codes


def write_tokenizer(folder: Path, words: list[str]) -> None:
    """Write a byte-level BPE tokenizer that was trained on `words`."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=2_000, special_tokens=[END_OF_TEXT], initial_alphabet=alphabet, show_progress=False
    )
    generator = np.random.default_rng(2)
    tokenizer.train_from_iterator((" ".join(text) for text in generator.choice(words, (2_000, 10))), trainer)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END_OF_TEXT).save_pretrained(folder)


def make_words() -> list[str]:
    """Make 3,000 words of syllables."""
    generator = np.random.default_rng(1)
    syllables = [first + second for first in "bdfgklmnprst" for second in ("a", "e", "i", "o", "u", "an", "er", "is")]
    counts = generator.integers(1, 4, 3_000)
    return ["".join(generator.choice(syllables, count)) for count in counts]


def write_inputs(folder: Path, n_tokens: int) -> Inputs:
    """Write all inputs; ids in JSON lines have the offset, as in UniTTS's own files."""
    words = make_words()
    write_tokenizer(folder / "tokenizer", words)
    write_table(folder / "table", n_tokens, words)
    with (folder / "lines.jsonl").open("w") as file:
        for path in sorted((folder / "table").iterdir()):
            for batch in pq.ParquetFile(path).iter_batches(1_000, columns=["id", "text", "codes"]):
                for row in batch.to_pylist():
                    ids = [code + OFFSET for code in row["codes"]]
                    line = {"audio_path": f"{row['id']}.wav", "text": row["text"], "audio_token": ids}
                    file.write(json.dumps(line) + "\n")
    return Inputs(folder / "table", folder / "lines.jsonl", folder / "tokenizer", folder / "cache")


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


def ids_in(output: Path) -> np.ndarray:
    """All ids of an output, one sequence behind the other."""
    binary = sorted(path for path in output.glob("*.bin") if path.name != "lengths.bin")
    if binary:
        return np.concatenate([np.fromfile(path, np.int32) for path in binary])
    tables = [pq.read_table(path, columns=["input_ids"]) for path in sorted(output.glob("*.parquet"))]
    return pa.concat_tables(tables)["input_ids"].combine_chunks().flatten().to_numpy().astype(np.int32)


@dataclass(frozen=True)
class Time:
    """Seconds of a run: on the wall clock, of the processor, and of the processor in units alone."""

    wall: float
    processor: float
    units: float


def run_once(write: Callable[[Path], float | None], output: Path) -> Time:
    """Write to the new folder `output`; an export returns the share of the command that its units take."""
    shutil.rmtree(output, ignore_errors=True)
    gc.collect()
    started = time.perf_counter(), time.process_time()
    share = write(output)
    wall, processor = time.perf_counter() - started[0], time.process_time() - started[1]
    return Time(wall, processor, processor * (1.0 if share is None else share))


def use_one_core() -> None:
    """Keep this process and the threads of its libraries on one core."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    os.environ |= {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    torch.set_num_threads(1)
    pa.set_cpu_count(1)


def measure(ways: dict[str, Callable[[Path], float | None]], work: Path, rounds: int) -> dict[str, list[Time]]:
    """Run all ways in turn, each in its process, after one round to warm up."""
    times: dict[str, list[Time]] = {name: [] for name in ways}
    with ExitStack() as stack:
        processes = {
            name: stack.enter_context(ProcessPoolExecutor(1, get_context("spawn"), initializer=use_one_core))
            for name in ways
        }
        for number in range(rounds + 1):
            for name, write in ways.items():
                found = processes[name].submit(run_once, write, work / name).result()
                if number:
                    times[name].append(found)
    return times


def ratio(times: dict[str, list[Time]], name: str, other: str, units: bool) -> float:
    """Median over all rounds of the processor time of `other` divided by that of `name` in the same round."""
    pairs = zip(times[name], times[other], strict=True)
    return statistics.median(theirs.processor / (own.units if units else own.processor) for own, theirs in pairs)


def rates(inputs: Inputs, task: str, work: Path, rounds: int) -> Table:
    """Time all ways in turn, and check that all have made the same ids."""
    ways: dict[str, Callable[[Path], float | None]] = {name: partial(ours, inputs, task, name) for name in OURS}
    ways |= {
        "script, to Parquet": partial(script_to_parquet, inputs, task),
        "script, to an array": partial(script_to_binary, inputs, task),
        "datasets.map, to Parquet": partial(map_datasets, inputs, task),
    }
    times = measure(ways, work, rounds)
    expected = ids_in(work / "export sequences")
    for name in ways:
        assert np.array_equal(ids_in(work / name), expected), f"{name} has made other ids"
    table = Table(title=f"--task {task}: {len(expected):,} ids, one core, median of {rounds}", title_justify="left")
    for heading in ("way", "ids/s", "by processor time", "in units", "faster than", "x", "x in units"):
        table.add_column(heading, justify="left" if heading in ("way", "faster than") else "right")
    for name in ways:
        wall, processor, units = (
            f"{len(expected) / statistics.median(getattr(run, clock) for run in times[name]):,.0f}"
            for clock in ("wall", "processor", "units")
        )
        if name in OURS:
            same = SAME_FORM[name]
            fastest = min(same, key=lambda other: statistics.median(run.processor for run in times[other]))
            found = [f"{ratio(times, name, fastest, alone):.1f}" for alone in (False, True)]
            table.add_row(name, wall, processor, units, fastest, *found)
        else:
            table.add_row(name, wall, processor, "", "", "", "")
    return table


def peak_of(arguments: list[str]) -> tuple[float, float]:
    """Run a command of codectok, and return its seconds and its peak memory in MB."""
    started = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "codectok", *arguments], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, arguments
    return time.perf_counter() - started, usage.ru_maxrss * 1024 / 1e6


def memory(n_tokens: int, work: Path) -> Table:
    """Export tables of `n_tokens` and of half as many, and show the peak memory of each command."""
    table = Table(title="Peak memory of the command, one worker in its process", title_justify="left")
    for heading in ("command", "codes", "files", "MB on disk", "seconds", "peak MB"):
        table.add_column(heading, justify="left" if heading == "command" else "right")
    for count in (n_tokens // 2, n_tokens):
        n_codes = write_table(work / "large", count)
        files = list((work / "large").iterdir())
        size = sum(file.stat().st_size for file in files) / 1e6
        for name in OURS:
            arguments = [*name.split(), str(work / "large"), str(work / "out"), "--packing", "next-fit"]
            seconds, peak = peak_of([*arguments, "--length", str(LENGTH), "--engine", "local"])
            table.add_row(name, f"{n_codes:,}", str(len(files)), f"{size:,.0f}", f"{seconds:,.0f}", f"{peak:,.0f}")
            shutil.rmtree(work / "out")
        shutil.rmtree(work / "large")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description="Speed and memory of exports.")
    parser.add_argument("--tokens", type=int, default=8_000_000, help="codes to export")
    parser.add_argument("--rounds", type=int, default=3, help="of which the median is shown")
    parser.add_argument("--large", type=int, help="measure the memory for this many codes instead")
    parser.add_argument("--folder", type=Path, help="where inputs and outputs are written; a temporary one by default")
    parser.add_argument("--save", action="store_true", help="also write the output to benchmarks/results")
    options = parser.parse_args()
    use_one_core()
    report = common.Report()
    report.console.print(common.machine(torch.device("cpu")))
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        work = Path(folder)
        if options.large:
            report.console.print(memory(options.large, work))
        else:
            inputs = write_inputs(work, options.tokens)
            for task in TASKS:
                report.console.print(rates(inputs, task, work / task, options.rounds))
    if options.save:
        report.save("export-memory-cpu" if options.large else "export-cpu")


if __name__ == "__main__":
    main()
