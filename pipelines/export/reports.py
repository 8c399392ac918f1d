"""Describes finished exports of documents: advice, and the list of parts that Megatron reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from codectok.exports.choices import TooLong
from codectok.exports.sequences.megatron import TYPES, code_of_ids
from codectok.exports.sequences.sidecar import LOSS_MASK_SUFFIX
from codectok.pipelines.engine.job import JobReporter
from codectok.pipelines.engine.output.records import Counts, UnitRecord
from codectok.pipelines.engine.output.unit_files import LENGTH_PREFIX
from codectok.storage import Storage

from .options import DocumentOptions
from .sources import ExportSources
from .verify import DATA_PATHS_FILE

# Advice is given if at least this share of a source was dropped as too long.
NOTICEABLE_SHARE = 0.01
# Largest duration that advice suggests for rows, in seconds.
USUAL_SECONDS = 30


class ReportedJob(Protocol):
    """A job that makes documents."""

    @property
    def settings(self) -> DocumentOptions:
        """Its options."""

    @property
    def sources(self) -> ExportSources:
        """Its tables and texts."""

    @property
    def largest_id(self) -> int:
        """Largest id of its tokens."""

    @property
    def text_name(self) -> str:
        """Name of the rows of sources that are no tables."""

    @property
    def remedy(self) -> TooLong:
        """How to keep documents that are too long."""

    def fitting_seconds(self, dataset: str) -> float:
        """Duration of audio that fits into a sequence; 0 if it cannot be cut because text belongs to it."""


class DocumentReporter(JobReporter):
    """Advises if much was left out as too long."""

    def __init__(self, job: ReportedJob) -> None:
        self._job = job

    def advice(self, datasets: Mapping[str, Counts]) -> Sequence[str]:
        """Suggest options if a noticeable share of a source was dropped as too long."""
        advice = []
        settings, sources = self._job.settings, self._job.sources
        for name, counts in datasets.items():
            audio = name in sources.tables
            what = "audio" if audio else self._job.text_name
            left_out = (counts.reject_seconds if audio else counts.rejects).get("too_long", 0)
            share = left_out / max(counts.input_seconds if audio else counts.inputs, 1e-9)
            if share >= NOTICEABLE_SHARE:
                fitting = int(min(USUAL_SECONDS, self._job.fitting_seconds(name)))
                cut = f"tokenize with --max-seconds {fitting}, or " if fitting else ""
                remedies = ["a greater --length"]
                if settings.packing.too_long == TooLong.DROP and settings.layout.order == "flat":
                    remedies.insert(0, f"--too-long {self._job.remedy}")
                advice.append(
                    f"{share:.0%} of the {what} in {name} was dropped, in documents longer"
                    f" than --length {settings.packing.length}; {cut}pass {' or '.join(remedies)}."
                )
        return advice


class MegatronReporter(DocumentReporter):
    """Writes the list of parts that Megatron reads."""

    def write_files(self, storage: Storage, records: Sequence[UnitRecord], total: Counts) -> Sequence[str]:
        """Write `data-paths.txt`: number of tokens and prefix of each part, as Megatron's weights and paths.

        An output of several lengths has a list for each, such as `data-paths-8192.txt`.
        """
        lines: dict[str, list[str]] = {}
        for record in records:
            for file in record.files:
                folder, _, name = file.name.rpartition("/")
                if not name.endswith(".bin") or name.endswith(f"{LOSS_MASK_SUFFIX}.bin"):
                    continue
                n_tokens = file.bytes // TYPES[code_of_ids(self._job.largest_id + 1)].itemsize
                lines.setdefault(folder, []).append(f"{n_tokens} {file.name.removesuffix('.bin')}\n")
        names = []
        for folder in self._job.settings.packings:
            length = folder.removeprefix(LENGTH_PREFIX)
            names.append(f"data-paths-{length}.txt" if folder else DATA_PATHS_FILE)
            storage.write(names[-1], "".join(lines.get(folder, [])).encode())
        return names
