"""Dataset card of a token table for the Hugging Face Hub: `README.md` beside its Parquet files."""

from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from codectok.atomic import remove_leftovers, write_text
from codectok.errors import InputError, damage_errors
from codectok.tokens.table import TableMetadata, read_metadata, table_files, table_schema
from codectok.tokens.table_checks import TABLE_REMEDY, check_columns

CARD_FILE = "README.md"
# The Hub accepts ISO 639 codes only; tables may hold other names of languages.
LANGUAGE = re.compile(r"[a-z]{2,3}")
SIZE_STEPS = {10**3: "1K", 10**4: "10K", 10**5: "100K", 10**6: "1M", 10**7: "10M", 10**8: "100M", 10**9: "1B"}

BODY = """\
# {title}

Tokens of the audio codec {codec} (fingerprint `{fingerprint}`), written by codectok.

| | |
|---|---|
| clips | {rows:,} |
| audio | {hours:,.2f} h |
| codes | {codes:,} ({n_codebooks} x {frame_rate:g} per second, each 0 to {largest}) |
| made with | {made_with} |
| data sets | {datasets} |

The recordings have their own licence; name it above before you publish this.

```python
from datasets import load_dataset

rows = load_dataset({path}, split="train", streaming=True)
```

`codes` holds a clip's codes frame by frame, {n_codebooks} for each frame; `id`, `source`, `start` and `duration`
(seconds) locate each row in its recording; `text`, `language`, `speaker` and `category` are its labels, if known.
Decode codes with that codec:

```python
import numpy
from codectok import Codec

codec = Codec.from_pretrained("codec")
for row in rows:
    waveform = codec.decode(numpy.array(row["codes"]).reshape(-1, {n_codebooks}))
```
"""


@dataclass
class TableTotals:
    """Totals of a table that its card shows; `content` is a hash of its files' metadata."""

    rows: int = 0
    seconds: float = 0.0
    frames: int = 0
    datasets: set[str] = field(default_factory=set)
    languages: set[str] = field(default_factory=set)
    content: str = ""


def write_dataset_card(table: Path, overwrite: bool = False, allow_mixed: bool = False) -> TableTotals:
    """Write `README.md` into the folder of a token table, so that `datasets.load_dataset(folder)` reads it.

    Args:
        table: the folder.
        overwrite: replace a README.md.
        allow_mixed: accept a table of one codec whose codes were computed differently; the card says how.

    Raises:
        InputError: `table` is not a folder with a token table, is mixed, or has a README.md and `overwrite` is False.
    """
    if not table.is_dir():
        raise InputError(f"{table} is not a folder with a token table.")
    metadata = read_metadata(table, allow_mixed)
    card = table / CARD_FILE
    if card.exists() and not overwrite:
        raise InputError(f"{card} is already there; pass --overwrite to replace it.")
    totals = _totals(table, metadata)
    remove_leftovers(card)
    write_text(card, f"---\n{_header(totals)}---\n\n{_body(table.absolute().name, metadata, totals)}")
    return totals


def _totals(table: Path, metadata: TableMetadata) -> TableTotals:
    totals, content = TableTotals(), hashlib.sha256()
    for part in table_files(table):
        with part.open() as file, damage_errors(part, TABLE_REMEDY):
            check_columns(file.schema_arrow, table_schema(metadata), str(part))
            content.update(f"{part.stem} {file.metadata.to_dict()} {file.schema_arrow.metadata}".encode())
            for batch in file.iter_batches(columns=["duration", "n_frames", "dataset", "language"], use_threads=False):
                totals.rows += len(batch)
                totals.seconds += math.fsum(batch["duration"].to_pylist())
                totals.frames += sum(batch["n_frames"].to_pylist())
                totals.datasets.update(batch["dataset"].drop_null().unique().to_pylist())
                totals.languages.update(batch["language"].drop_null().unique().to_pylist())
    totals.content = content.hexdigest()
    return totals


def _header(totals: TableTotals) -> str:
    config = {
        "config_name": "default",
        # `datasets` caches by the folder's name and this card alone, so that the card must differ between tables.
        "description": f"content {totals.content[:16]}",
        # Only the part files: a job's own files lie in a folder below them.
        "data_files": [{"split": "train", "path": "*.parquet"}],
    }
    header = {
        "tags": ["audio", "audio-tokens", "codectok"],
        "size_categories": [size_category(totals.rows)],
        "configs": [config],
    }
    languages = sorted(language for language in totals.languages if LANGUAGE.fullmatch(language))
    return yaml.safe_dump({"language": languages} | header if languages else header, sort_keys=False)


def size_category(rows: int) -> str:
    """Return the range of a number of rows in the Hub's notation, such as 1K<n<10K."""
    below = "n"
    for limit, name in SIZE_STEPS.items():
        if rows < limit:
            return f"{below}<{name}"
        below = f"{name}<n"
    return "1B<n<10B" if rows < 10**10 else "10B<n<100B"


def _body(name: str, metadata: TableMetadata, totals: TableTotals) -> str:
    return BODY.format(
        title=name,
        path=json.dumps(name, ensure_ascii=False),
        codec=metadata.codec_name,
        fingerprint=metadata.codec_fingerprint,
        rows=totals.rows,
        hours=totals.seconds / 3600,
        codes=totals.frames * metadata.n_codebooks,
        n_codebooks=metadata.n_codebooks,
        frame_rate=metadata.frame_rate,
        largest=metadata.codebook_size - 1,
        made_with=metadata.made_with,
        datasets=", ".join(sorted(totals.datasets)),
    )
