"""Files of an evaluation: rows of clips and examples of each unit, and the files about the whole."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from codectok.evaluation.metrics.base import Quantity
from codectok.pipelines.engine.output.unit_files import CLIPS, EXAMPLES

METRICS_FILE, SUMMARY_FILE, PAGE_FILE = "metrics.parquet", "summary.json", "report.html"
REFERENCES_FILE, TEXTS_FILE, LIST_SUFFIX = "references.jsonl", "text", ".scp"
ORIGINAL = "original"
CODES_COLUMN, DELAY_COLUMN, REASONS_COLUMN = "codes", "delay", "reasons"


def clips_name(unit: int) -> str:
    """Name of the file with a unit's rows."""
    return f"{CLIPS}/{unit:06d}.parquet"


def examples_name(unit: int) -> str:
    """Name of the file with the audio of a unit's examples."""
    return f"{EXAMPLES}/{unit:06d}.parquet"


def unit_of_clips(name: str) -> int:
    """Number of the unit whose rows are in the file `name`."""
    return int(name.removeprefix(f"{CLIPS}/").removesuffix(".parquet"))


def audio_name(unit: int, number: int, system: str) -> str:
    """Name of a FLAC file of clip `number` of a unit."""
    return f"audio-{unit:06d}/{number:06d}-{system}.flac"


def rows_schema(quantities: Sequence[Quantity]) -> pa.Schema:
    """Columns of a unit's rows: a row for each clip and each codec or control."""
    return pa.schema(
        [
            pa.field("id", pa.string(), nullable=False),
            pa.field("dataset", pa.string(), nullable=False),
            pa.field("source", pa.string(), nullable=False),
            pa.field("start", pa.float64(), nullable=False),
            pa.field("seconds", pa.float64(), nullable=False),
            pa.field("category", pa.string(), nullable=False),
            pa.field("language", pa.string()),
            pa.field("text", pa.string()),
            pa.field("system", pa.string(), nullable=False),
            pa.field("n_frames", pa.int32()),
            pa.field(DELAY_COLUMN, pa.int32()),
            *(pa.field(quantity.name, pa.float64()) for quantity in quantities),
            pa.field(REASONS_COLUMN, pa.map_(pa.string(), pa.string()), nullable=False),
            pa.field(CODES_COLUMN, pa.list_(pa.int32())),
        ]
    )


EXAMPLES_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("category", pa.string(), nullable=False),
        pa.field("badness", pa.float64()),
        pa.field("lot", pa.float64(), nullable=False),
        pa.field("system", pa.string(), nullable=False),
        pa.field("flac", pa.binary(), nullable=False),
    ]
)
