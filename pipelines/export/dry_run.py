"""Dry run of an export of documents: counts them without writing any."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from codectok.errors import InputError
from codectok.exports.sequences.documents import Document
from codectok.pipelines.engine.options import RunOptions
from codectok.pipelines.engine.output.unit_output import UnitOutput
from codectok.pipelines.engine.planning.preview import plan_work
from codectok.pipelines.engine.planning.unit import Unit
from codectok.sources.rejects import Reject

from .document_job import DocumentJob
from .rejected import RejectedDocument


@dataclass
class DocumentCounts:
    """Documents of a source and a pattern.

    Attributes:
        documents, tokens: number of documents, and of their tokens.
        truncated: number of documents of which tokens were cut off.
        seconds: duration of their audio.
    """

    documents: int = 0
    tokens: int = 0
    truncated: int = 0
    seconds: float = 0.0

    def add(self, document: Document) -> None:
        """Count a document."""
        self.documents += 1
        self.tokens += len(document.ids)
        self.truncated += document.n_truncated > 0
        self.seconds += document.seconds


@dataclass
class DocumentsPreview:
    """Documents that an export would write, counted in some or all of its parts.

    Attributes:
        parts, all_parts: number of parts that were read, and of all that are not written yet.
        share: share of their sources that was read, by size.
        counts: by source and pattern; the pattern is the task of documents without one.
        left_out: number of documents, rows and texts that are left out, by source, pattern and reason. A row that lacks
            a field has the pattern that was drawn for its document.
        examples: message of one of them, by the same.
        sequences: number of sequences by folder.
        sequence_tokens: tokens in them by folder.
    """

    parts: int
    all_parts: int
    share: float
    counts: dict[tuple[str, str], DocumentCounts] = field(default_factory=dict)
    left_out: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    examples: dict[tuple[str, str, str], str] = field(default_factory=dict)
    sequences: Counter[str] = field(default_factory=Counter)
    sequence_tokens: Counter[str] = field(default_factory=Counter)


def preview_documents(
    job: DocumentJob,
    sources: Sequence[str],
    output: str | Path,
    options: RunOptions | None = None,
    sample: int | None = 1,
    on_part: Callable[[], None] = lambda: None,
) -> DocumentsPreview:
    """Count the documents that `job` would write to `output`; writes nothing there.

    Args:
        job, sources, output, options: as for `codectok.pipelines.engine.run.run_job`.
        sample: number of parts to read, at equal distances among those that are not written yet (in a share of the plan
            with `options.part`); None for all.
        on_part: called after each part.

    Raises:
        InputError: as in `run_job`, or `sample` is below 1.
    """
    if sample is not None and sample < 1:
        raise InputError(f"A sample of {sample} parts is impossible; give a number from 1 on, or all.")
    work = plan_work(job, sources, output, options)
    plan = work.context.load_plan()
    units = [plan.units[number] for number in work.units]
    chosen = [units[place] for place in _spread(len(units), len(units) if sample is None else sample)]
    total, read = (sum(unit.estimated_seconds for unit in some) for some in (units, chosen))
    preview = DocumentsPreview(len(chosen), len(units), read / total if total else 1.0)
    sequences_of = job.start_sequences(work.context)
    for outline in chosen:
        with TemporaryDirectory() as folder:
            unit = plan.unit(outline.number)
            output_of_unit = _PreviewOutput(unit, Path(folder), job, preview)
            for name, sequence in sequences_of(unit, output_of_unit):
                _count(job, preview, name, sequence)
        on_part()
    return preview


class _PreviewOutput(UnitOutput):
    """Counts what is left out, and stores nothing of it."""

    def __init__(self, unit: Unit, folder: Path, job: DocumentJob, preview: DocumentsPreview) -> None:
        super().__init__(unit, folder)
        self._job, self._preview = job, preview

    def reject(self, reject: Reject) -> None:
        """Count a document, a row or a text."""
        form = self._job.form_of(reject) if isinstance(reject, RejectedDocument) else self._job.task_of(reject.dataset)
        key = reject.dataset, form, reject.reason
        self._preview.left_out[key] += 1
        self._preview.examples.setdefault(key, reject.message)


def _count(job: DocumentJob, preview: DocumentsPreview, folder: str, sequence: Sequence[Document]) -> None:
    preview.sequences[folder] += 1
    for document in sequence:
        preview.sequence_tokens[folder] += len(document.ids)
        key = document.dataset, job.form_of(document)
        preview.counts.setdefault(key, DocumentCounts()).add(document)


def _spread(n: int, wanted: int) -> list[int]:
    """Return `wanted` of `n` numbers, or all, at equal distances."""
    wanted = min(n, wanted)
    return [number * n // wanted for number in range(wanted)]
