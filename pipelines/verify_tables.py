"""Checking token tables: their codes, lengths, ids and statistics."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from codectok.errors import VerificationError
from codectok.storage import Storage
from codectok.tokens.table import METADATA_KEY, TableMetadata, hash_of_id, table_schema

from .job import UnitRecord
from .output import unit_hash
from .plan import Plan
from .tokenize import STATISTICS_FILE, counts_name, read_statistics

TOLERANCE_SECONDS = 1e-6


class TableVerifier:
    """Checks the parts of a table, in any order and from several threads; `finish` checks the whole."""

    def __init__(self, storage: Storage, plan: Plan) -> None:
        self._storage, self._plan = storage, plan
        self._lock = threading.Lock()
        self._ids: dict[str, np.ndarray] = {}
        self._counts: np.ndarray | None = None

    def check_of(self, record: UnitRecord, name: str) -> Callable[[], None]:
        """The check of the part `name`, which the unit of `record` has made."""
        return lambda: self._check(record, name)

    def finish(self, records: list[UnitRecord]) -> None:
        """Check what no part shows alone: ids that come up twice, and the statistics."""
        names = sorted(self._ids)
        hashes = np.concatenate([self._ids[name] for name in names]) if names else np.zeros(0, np.uint64)
        ordered = np.sort(hashes)
        repeated = ordered[1:][ordered[1:] == ordered[:-1]]
        if len(repeated):
            self._name_repeated_id(names, set(repeated.tolist()))
        try:
            statistics = read_statistics(self._storage)
        except (FileNotFoundError, ValidationError):
            raise VerificationError(f"{self._storage.url}/{STATISTICS_FILE} is missing or damaged.") from None
        counts = [list(use.counts) for use in statistics.codebooks]
        found = [] if self._counts is None else self._counts.tolist()
        if counts != found or statistics.rows != sum(record.total.rows for record in records):
            raise VerificationError(f"{self._storage.url}/{STATISTICS_FILE} does not agree with the rows of the table.")

    def _check(self, record: UnitRecord, name: str) -> None:
        where = f"{self._storage.url}/{name}"
        try:
            with self._storage.open(name) as opened, pq.ParquetFile(opened, pre_buffer=False) as file:
                metadata = self._metadata(file, where, record)
                totals = _Totals(metadata)
                for group in range(file.num_row_groups):
                    totals.add(file.read_row_group(group), where)
        except (pa.ArrowException, OSError) as error:
            reason = str(error).strip().splitlines()[0]
            raise VerificationError(f"{where} cannot be read: {reason}") from None
        total = record.total
        if (totals.rows, totals.codes) != (total.rows, total.codes):
            raise VerificationError(
                f"{where} has {totals.rows} rows of {totals.codes} codes, but its record says {total.rows} of"
                f" {total.codes}."
            )
        if not abs(totals.seconds - total.seconds) <= TOLERANCE_SECONDS * max(1.0, total.seconds):
            raise VerificationError(f"{where} has {totals.seconds:g} s, but its record says {total.seconds:g} s.")
        self._compare_counts(record.unit, totals.counts)
        with self._lock:
            self._ids[name] = np.array(totals.ids, np.uint64)
            self._counts = totals.counts if self._counts is None else self._counts + totals.counts

    def _metadata(self, file: pq.ParquetFile, where: str, record: UnitRecord) -> TableMetadata:
        text = (file.schema_arrow.metadata or {}).get(METADATA_KEY, b"")
        try:
            metadata = TableMetadata.model_validate_json(text)
        except ValidationError:
            raise VerificationError(f"{where} does not say of which codec its codes are.") from None
        options = self._plan.header.options
        if metadata.codec_fingerprint != options["codec"]:
            raise VerificationError(f"{where} holds codes of another codec than the plan says.")
        if (metadata.dtype, metadata.device, metadata.pack_frames) != (
            options["dtype"],
            options["device"],
            options["pack_frames"],
        ):
            raise VerificationError(f"{where} says of itself that it was computed in another way than the plan says.")
        if not file.schema_arrow.equals(table_schema(metadata)):
            raise VerificationError(f"{where} has other columns than a token table.")
        if metadata.unit_hash != unit_hash(self._plan.header, self._plan.unit(record.unit)):
            raise VerificationError(f"{where} was made from other sources or options than the plan says.")
        return metadata

    def _compare_counts(self, unit: int, counts: np.ndarray) -> None:
        name = counts_name(unit)
        try:
            stored = pq.read_table(io.BytesIO(self._storage.read(name)))["count"].to_numpy()
        except (FileNotFoundError, pa.ArrowException, KeyError):
            raise VerificationError(f"{self._storage.url}/{name} is missing or damaged.") from None
        if not np.array_equal(stored, counts.reshape(-1)):
            raise VerificationError(f"{self._storage.url}/{name} does not count the codes of its part.")

    def _name_repeated_id(self, names: list[str], hashes: set[int]) -> None:
        seen: dict[str, str] = {}
        for name in names:
            if hashes.isdisjoint(self._ids[name].tolist()):
                continue
            with self._storage.open(name) as opened:
                for row_id in pq.read_table(opened, columns=["id"])["id"].to_pylist():
                    if row_id in seen:
                        raise VerificationError(
                            f"The id {row_id} of {self._storage.url}/{name} is also that of a row in {seen[row_id]}."
                        )
                    if hash_of_id(row_id) in hashes:
                        seen[row_id] = name


class _Totals:
    """What the row groups of a part add up to; each is checked as it comes."""

    def __init__(self, metadata: TableMetadata) -> None:
        self._metadata = metadata
        self._frame_size = round(metadata.sample_rate / metadata.frame_rate)
        self.rows = self.codes = 0
        self.seconds = 0.0
        self.ids: list[int] = []
        self.counts = np.zeros((metadata.n_codebooks, metadata.codebook_size), np.int64)

    def add(self, table: pa.Table, where: str) -> None:
        metadata = self._metadata
        ids = table["id"].to_pylist()
        lists = table["codes"].combine_chunks()
        codes, lengths = lists.flatten().to_numpy(), lists.value_lengths().to_numpy()
        n_frames, n_samples = table["n_frames"].to_numpy(), table["n_samples"].to_numpy()
        durations = table["duration"].to_numpy()

        def refuse(wrong: np.ndarray, what: str) -> None:
            if wrong.any():
                raise VerificationError(f"The row {ids[int(np.argmax(wrong))]} of {where} {what}.")

        refuse(lengths != n_frames.astype(np.int64) * metadata.n_codebooks, "has not n_frames codes of each codebook")
        refuse(
            n_frames != np.maximum(1, n_samples // self._frame_size),
            "has a number of frames that its samples do not give",
        )
        refuse(
            ~(np.abs(durations * metadata.sample_rate - n_samples) <= 0.5),
            "has a duration that is not that of its samples",
        )
        if len(codes) and int(codes.max()) >= metadata.codebook_size:
            row = int(
                np.searchsorted(np.cumsum(lengths), int(np.argmax(codes >= metadata.codebook_size)), side="right")
            )
            raise VerificationError(f"The row {ids[row]} of {where} has a code beyond {metadata.codebook_size - 1}.")
        for counts, column in zip(self.counts, codes.reshape(-1, metadata.n_codebooks).T, strict=True):
            counts += np.bincount(column, minlength=len(counts))
        self.rows += len(ids)
        self.codes += len(codes)
        self.seconds += float(durations.sum())
        self.ids += [hash_of_id(row_id) for row_id in ids]
