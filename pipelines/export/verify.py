"""Verifiers of exports: parts are consistent and agree with their records."""

from __future__ import annotations

from collections.abc import Collection

import pyarrow.parquet as pq

from codectok.errors import VerificationError
from codectok.exports.sequences.sidecar import LOSS_MASK_SUFFIX
from codectok.pipelines.engine.output.records import UnitRecord
from codectok.pipelines.engine.output.summary import described_files
from codectok.pipelines.engine.verifier import OutputVerifier
from codectok.storage import Storage

from .verify_amounts import Amounts, compare_amounts
from .verify_megatron import check_dataset, check_loss_mask
from .verify_sequences import check_sequences
from .verify_sidecar import check_sidecar

DATA_PATHS_FILE = "data-paths.txt"
# Versions of the bytes of `export megatron`.
FIRST_WITH_SIDECARS, FIRST_WITH_DESCRIPTIONS = 6, 7


class SequencesVerifier(OutputVerifier):
    """Checks the output of `export sequences`."""

    def check(self, record: UnitRecord, name: str) -> None:
        """Check the documents and ids of all parts of a unit, together with its first one."""
        names = [file.name for file in record.files if file.name.endswith(".parquet")]
        if name == names[0]:
            found = [check_sequences(self.storage, one) for one in names]
            compare_amounts(f"{self.storage.url}/{name}", record, found)


class MegatronVerifier(OutputVerifier):
    """Checks the output of `export megatron`."""

    @classmethod
    def files_about_the_whole(cls, storage: Storage) -> Collection[str]:
        """The lists of prefixes."""
        return {DATA_PATHS_FILE, *described_files(storage)}

    def check(self, record: UnitRecord, name: str) -> None:
        """Check all indexed datasets of a unit with what belongs to them, together with its first index."""
        stems = [file.name.removesuffix(".idx") for file in record.files if file.name.endswith(".idx")]
        prefixes = [stem for stem in stems if not stem.endswith(LOSS_MASK_SUFFIX)]
        if name == f"{prefixes[0]}.idx":
            found = [self._check_prefix(record, prefix) for prefix in prefixes]
            compare_amounts(f"{self.storage.url}/{name}", record, found)

    def _check_prefix(self, record: UnitRecord, prefix: str) -> Amounts:
        header = self.plan.header
        lengths = check_dataset(self.storage, prefix, record)
        documents = None
        if header.bytes_version >= FIRST_WITH_SIDECARS:
            described = header.bytes_version >= FIRST_WITH_DESCRIPTIONS
            documents, starts = check_sidecar(self.storage, prefix, record, lengths, described)
            if "loss" in header.options:
                check_loss_mask(self.storage, prefix, record, lengths, starts)
        return Amounts(int(lengths.sum(dtype="int64")), documents)


class UnittsVerifier(OutputVerifier):
    """Checks the output of `export unitts`."""

    def check(self, record: UnitRecord, name: str) -> None:
        """Check the number of rows, or of `.audio` files, of a part."""
        clips = [file.name for file in record.files if file.name.endswith(".audio")]
        if name == next(iter(clips), None) and len(clips) != record.total.rows:
            raise VerificationError(
                f"{self.storage.url} has {len(clips)} .audio files of the unit {record.unit}, but its record says"
                f" {record.total.rows}."
            )
        if name.endswith(".parquet"):
            with self.storage.open(name) as opened, pq.ParquetFile(opened, pre_buffer=False) as file:
                rows = file.metadata.num_rows
            if rows != record.total.rows:
                raise VerificationError(
                    f"{self.storage.url}/{name} has {rows} rows, but its record says {record.total.rows}."
                )
