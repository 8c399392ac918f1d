"""Statistics of a token table: how often each code of each codebook occurs."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from codectok.config import StrictModel
from codectok.errors import CodectokError, InputError, damage_errors
from codectok.evaluation.codes.codebook import CodebookUse, count_codes
from codectok.pipelines.engine.output.records import Counts
from codectok.pipelines.engine.output.statistics import STATISTICS_FILE
from codectok.pipelines.engine.output.unit_files import CODE_COUNTS, code_counts_name
from codectok.pipelines.engine.output.unit_output import UnitOutput
from codectok.pipelines.engine.timing import RunTiming
from codectok.sources.unused import UnusedCounts
from codectok.storage import Storage


class TokenStatistics(StrictModel):
    """Contents of `stats.json`.

    Attributes:
        codebooks: in the order of the table's columns.
        unused: parts of the inputs that are not used.
        timing: times of the run that completed the table; None if an earlier version did not record them.
    """

    rows: int
    hours: float
    frames: int
    codes: int
    codebooks: tuple[CodebookUse, ...]
    unused: UnusedCounts = Field(default_factory=dict)
    timing: RunTiming | None = None


def statistics_of(total: Counts, code_counts: np.ndarray) -> TokenStatistics:
    """Statistics of a table in which code k of codebook c occurs `code_counts[c, k]` times."""
    return TokenStatistics(
        rows=total.rows,
        hours=total.seconds / 3600,
        frames=total.codes // len(code_counts),
        codes=total.codes,
        codebooks=tuple(CodebookUse.of(counts_of_codebook) for counts_of_codebook in code_counts),
        unused=total.unused,
    )


def read_statistics(storage: Storage, error_type: type[CodectokError] = InputError) -> TokenStatistics:
    """Read the statistics of a finished table; raise an error of `error_type` if they are damaged."""
    data = storage.read(STATISTICS_FILE)
    with damage_errors(f"{storage.url}/{STATISTICS_FILE}", "remove it, and run the same command again", error_type):
        return TokenStatistics.model_validate_json(data)


class CodeCounts:
    """Number of occurrences of each code of each codebook, in one unit."""

    def __init__(self, n_codebooks: int, codebook_size: int) -> None:
        self._counts = np.zeros((n_codebooks, codebook_size), np.int64)

    def add(self, codes: np.ndarray) -> None:
        """Count `codes` [n_frames, n_codebooks]."""
        count_codes(self._counts, codes)

    def write(self, output: UnitOutput, unit: int) -> None:
        """Write the counts to the unit's output."""
        path = output.folder / code_counts_name(unit)
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"count": self._counts.reshape(-1)}), path, compression="zstd")


def sum_of_code_counts(storage: Storage, shape: tuple[int, int]) -> np.ndarray:
    """Counts of all units together, [n_codebooks, codebook_size]."""
    total = np.zeros(shape, np.int64)
    for name in storage.sizes(CODE_COUNTS):
        data = storage.read(name)
        with damage_errors(f"{storage.url}/{name}", "run the job again into another folder"):
            counts = pq.read_table(pa.BufferReader(data), use_threads=False)["count"].to_numpy()
            total += counts.reshape(shape)
    return total
