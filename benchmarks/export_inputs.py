"""Inputs of `export.py`: the same random clips as a token table and as JSON lines, and a tokenizer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from codectok.tokens.table import TableMetadata, table_schema, table_writer

CODEBOOK, OFFSET = 32_768, 152_064
ROWS_OF_A_GROUP, ROWS_OF_A_FILE = 6_000, 240_000
WORDS_OF_A_TEXT = 12
END_OF_TEXT = "<|endoftext|>"


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
