"""Checks of the parts of a token table, row group by row group."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from codectok.errors import VerificationError, first_line
from codectok.evaluation.codes.codebook import count_codes
from codectok.parquet_damage import PARQUET_DAMAGE
from codectok.pipelines.engine.output.records import UnitRecord
from codectok.sources.rejects import name_in_rejects
from codectok.storage import Storage
from codectok.tokens.table import METADATA_KEY, TableMetadata, columns_of_users, hash_of_id, table_schema, types_of

TOLERANCE_SECONDS = 1e-6
SourceName = tuple[str, str]
"""Dataset and name of a source."""


def names_in_rejects(names: Iterable[SourceName]) -> Counter[SourceName]:
    """Count names in the form that rejects have."""
    return Counter((dataset, name_in_rejects(name)) for dataset, name in names)


class RowIds:
    """Hashes of the ids of all parts."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._hashes: dict[str, np.ndarray] = {}

    def add(self, part: str, hashes: list[int]) -> None:
        """Add the hashes of a part."""
        self._hashes[part] = np.array(hashes, np.uint64)

    def refuse_repeated(self) -> None:
        """Raise a `VerificationError` that names an id of two rows, if there is one."""
        ordered = np.sort(np.concatenate([np.zeros(0, np.uint64), *self._hashes.values()]))
        repeated = set(ordered[1:][ordered[1:] == ordered[:-1]].tolist())
        seen: dict[str, str] = {}
        for name in sorted(self._hashes) if repeated else ():
            if repeated.isdisjoint(self._hashes[name].tolist()):
                continue
            with self._storage.open(name) as opened, pq.ParquetFile(opened, pre_buffer=False) as file:
                for row_id in file.read(["id"], use_threads=False)["id"].to_pylist():
                    if row_id in seen:
                        raise VerificationError(
                            f"The id {row_id} of {self._storage.url}/{name} is also the id of a row in {seen[row_id]}."
                        )
                    if hash_of_id(row_id) in repeated:
                        seen[row_id] = name


@contextmanager
def open_part(
    storage: Storage, name: str, more: Mapping[str, str] | None
) -> Iterator[tuple[pq.ParquetFile, TableMetadata]]:
    """Open a part and read its metadata; errors of reading within the context become a `VerificationError`.

    Args:
        storage: storage of the table.
        name: name of the part.
        more: types by name of the columns after the columns of a token table; None allows any columns at any place.
    """
    where = f"{storage.url}/{name}"
    try:
        with storage.open(name) as opened, pq.ParquetFile(opened, pre_buffer=False) as file:
            schema = file.schema_arrow
            metadata = TableMetadata.model_validate_json((schema.metadata or {}).get(METADATA_KEY, b""))
            others = columns_of_users(schema, metadata)
            if more is None:
                fields = {field.name: field for field in schema}
                same = all(own.name in fields and fields[own.name].equals(own) for own in table_schema(metadata))
            else:
                same = types_of(others) == more and schema.equals(table_schema(metadata, others))
            if not same:
                raise VerificationError(f"{where} has other columns than a token table.")
            yield file, metadata
    except ValidationError:
        raise VerificationError(f"{where} has no valid metadata of its codec.") from None
    except (*PARQUET_DAMAGE, OSError) as error:
        reason = first_line(error)
        raise VerificationError(f"{where} cannot be read: {reason}") from None


def _frames_follow(metadata: TableMetadata, n_samples: np.ndarray, n_frames: np.ndarray) -> np.ndarray:
    """Return bool [rows]: does the number of frames of a clip, or of a slice of one, follow from its samples?"""
    whole_frames = n_samples == n_frames.astype(np.int64) * metadata.frame_size  # a slice that is not the last one
    expected = metadata.n_frames(n_samples)
    right: np.ndarray = np.ones(len(n_samples), bool) if expected is None else whole_frames | (n_frames == expected)
    return right


class PartTotals:
    """Totals of a part; its row groups are checked one after the other.

    Raises:
        VerificationError: a row that contradicts itself or the metadata.
    """

    def __init__(self, file: pq.ParquetFile, metadata: TableMetadata, where: str) -> None:
        self._metadata = metadata
        self.rows = self.codes = 0
        self.seconds = 0.0
        self.ids: list[int] = []
        self.sources: Counter[SourceName] = Counter()
        self.counts = np.zeros((metadata.n_codebooks, metadata.codebook_size), np.int64)
        for group in range(file.num_row_groups):
            self._add(file.read_row_group(group, use_threads=False), where)

    def _add(self, table: pa.Table, where: str) -> None:
        metadata = self._metadata
        ids = table["id"].to_pylist()
        lists = table["codes"].combine_chunks()
        codes, lengths = lists.flatten().to_numpy(), lists.value_lengths().to_numpy()
        n_frames, n_samples = table["n_frames"].to_numpy(), table["n_samples"].to_numpy()
        durations = table["duration"].to_numpy()

        def refuse(wrong: np.ndarray, problem: str) -> None:
            if wrong.any():
                raise VerificationError(f"The row {ids[int(np.argmax(wrong))]} of {where} {problem}.")

        refuse(
            lengths != n_frames.astype(np.int64) * metadata.n_codebooks, "does not have n_frames codes of each codebook"
        )
        refuse(
            ~_frames_follow(metadata, n_samples, n_frames),
            "has a number of frames that does not follow from its samples",
        )
        refuse(
            ~(np.abs(durations * metadata.sample_rate - n_samples) <= 0.5),
            "has a duration that does not follow from its samples",
        )
        if len(codes) and int(codes.max()) >= metadata.codebook_size:
            row = int(
                np.searchsorted(np.cumsum(lengths), int(np.argmax(codes >= metadata.codebook_size)), side="right")
            )
            raise VerificationError(f"The row {ids[row]} of {where} has a code beyond {metadata.codebook_size - 1}.")
        count_codes(self.counts, codes.reshape(-1, metadata.n_codebooks))
        self.rows += len(ids)
        self.codes += len(codes)
        self.seconds += float(durations.sum())
        self.ids += [hash_of_id(row_id) for row_id in ids]
        self.sources.update(zip(table["dataset"].to_pylist(), table["source"].to_pylist(), strict=True))


def compare_totals(totals: PartTotals, record: UnitRecord, where: str) -> None:
    """Raise a `VerificationError` if a part does not match the counts in the record of its unit."""
    total = record.total
    if (totals.rows, totals.codes) != (total.rows, total.codes):
        raise VerificationError(
            f"{where} has {totals.rows} rows of {totals.codes} codes, but its record says {total.rows} of"
            f" {total.codes}."
        )
    if not abs(totals.seconds - total.seconds) <= TOLERANCE_SECONDS * max(1.0, total.seconds):
        raise VerificationError(f"{where} has {totals.seconds:g} s, but its record says {total.seconds:g} s.")
