"""Output formats of documents: sequences in Parquet, and Megatron's indexed datasets."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from codectok.exports.sequences.parquet import SequencesMetadata, SequenceWriter
from codectok.exports.sequences.sidecar import SidecarWriter
from codectok.pipelines.engine.job import JobReporter

from .document_job import DocumentJob
from .reports import MegatronReporter
from .verify import MegatronVerifier, SequencesVerifier
from .writing import Writer


class WritesSequences(DocumentJob):
    """Writes documents as sequences in Parquet."""

    verifier = SequencesVerifier
    output_bytes_per_second = 250.0
    output_factor_of_loss = 2.0

    def writer(self, path: Path, metadata: SequencesMetadata) -> AbstractContextManager[Writer]:
        """Open the writer of `part-NNNNNN.parquet`."""
        return SequenceWriter(path.with_suffix(".parquet"), metadata)


class WritesMegatron(DocumentJob):
    """Writes documents as Megatron's indexed datasets, one prefix per part."""

    verifier = MegatronVerifier
    output_bytes_per_second = 400.0
    output_factor_of_loss = 1.25

    def writer(self, path: Path, metadata: SequencesMetadata) -> AbstractContextManager[Writer]:
        """Open the writer of `part-NNNNNN.bin`, its index `.idx`, its documents `.parquet`, and its loss mask."""
        return SidecarWriter(path, self.largest_id + 1, metadata)

    @property
    def reporter(self) -> JobReporter:
        """Writes `data-paths.txt`, and advises if much was too long."""
        return MegatronReporter(self)
