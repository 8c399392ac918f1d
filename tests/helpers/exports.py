"""A small token table, and exports of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from codectok.pipelines.engine.options import RunOptions
from codectok.pipelines.engine.run import JobReport, run_job
from codectok.pipelines.export.document_job import DocumentJob
from codectok.pipelines.export.options import DocumentOptions
from codectok.pipelines.export.unitts import UnittsJob
from codectok.tokens.table import TokenRow
from codectok.tokens.vocabulary import Vocabulary

from .jobs import LOCAL
from .tables import metadata, write

CODEBOOK = 64
OFFSET = 400
VOCABULARY = Vocabulary(CODEBOOK, offset=OFFSET)
BEGIN, END, INNER_BEGIN, INNER_END = OFFSET + 64, OFFSET + 65, OFFSET + 67, OFFSET + 68
SMALL_PARTS = 0.004


def row(n: int, length: int) -> TokenRow:
    codes = np.random.default_rng(n).integers(CODEBOOK, size=(length, 1))
    text = None if n % 10 == 9 else f"clip number {n}"
    speaker = f"speaker {n % 3}" if n % 7 else None
    return TokenRow(
        f"c{n:03d}", f"{n // 5}.wav", "speech", 1.0 * n, length / 100, 240 * length, codes, text, "en", speaker
    )


ROWS = [row(n, 20 + 7 * n % 90) for n in range(83)]


def write_parts(folder: Path, rows_of_a_file: int) -> Path:
    for number, first in enumerate(range(0, len(ROWS), rows_of_a_file)):
        described = metadata(CODEBOOK, 1).model_copy(update={"unit_hash": str(number)})
        write(folder / f"part-{number:06d}.parquet", ROWS[first : first + rows_of_a_file], described)
    return folder


def options(**values: Any) -> DocumentOptions:
    return DocumentOptions(**{"offset": OFFSET, "end_of_sequence": "0", "part_megabytes": SMALL_PARTS, **values})


def export(job: DocumentJob | UnittsJob, output: Path, run_options: RunOptions = LOCAL) -> JobReport:
    return run_job(job, job.sources.arguments, output, run_options)


def sequences(output: Path) -> list[dict[str, Any]]:
    return [row for path in sorted(output.glob("*.parquet")) for row in pq.read_table(path).to_pylist()]
