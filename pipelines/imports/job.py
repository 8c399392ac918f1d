"""Job `import codes`: a token table of codes that other programs wrote."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from pydantic import JsonValue

from codectok.description import UNKNOWN
from codectok.errors import AudioError
from codectok.loading import load_codec
from codectok.phases import WRITING
from codectok.pipelines.engine.job import FirstPass, Job, JobReporter, RunUnit, WorkerContext
from codectok.pipelines.engine.output.folder import unit_hash
from codectok.pipelines.engine.output.unit_files import part_name
from codectok.pipelines.engine.output.unit_output import UnitOutput
from codectok.pipelines.engine.planning.cutting import CuttingPolicy
from codectok.pipelines.engine.planning.store import header_of
from codectok.pipelines.engine.planning.unit import Unit
from codectok.pipelines.tokenize.job import TableReporter
from codectok.pipelines.tokenize.statistics import CodeCounts
from codectok.sources.kinds import Kind
from codectok.sources.listing.arguments import Argument
from codectok.sources.rejects import Reject
from codectok.sources.unused import Unused
from codectok.tokens.imports.files import AUDIO, NPY
from codectok.tokens.imports.shapes import CodeForm
from codectok.tokens.table import TableMetadata, TokenRow, TokenTableWriter

from .duplicates import IdsJob, list_duplicates, read_duplicates
from .options import ImportOptions
from .rows import ImportedRow, ImportedRows
from .verify import ImportVerifier

FILE_SUFFIXES = (NPY, AUDIO)


class ImportCodesJob(Job):
    """Writes the codes in Parquet, JSON lines, `.npy` and `.audio` files to a token table, and rejects wrong ones."""

    verb = "import codes"
    row_name = "rows"
    kinds: tuple[Kind, ...] = ("parquet", "lines")
    verifier = ImportVerifier
    output_bytes_per_second = 200.0

    def __init__(self, options: ImportOptions) -> None:
        self.settings = options
        described = load_codec(options.codec, device="cpu", encoder_only=True).describe()
        # Other programs do not say how they computed the codes.
        unknown = {"dtype": UNKNOWN, "device": UNKNOWN, "kernels": UNKNOWN, "tf32": False}
        unset = dict.fromkeys(("pack_frames", "batch_seconds", "torch", "transformers"))
        self.description = described.model_copy(update={**unknown, **unset})
        form = CodeForm(described.n_codebooks, described.codebook_size, options.layout, options.offset)
        self.rows = ImportedRows(self.description, form, options.names)

    def options(self) -> Mapping[str, JsonValue]:
        """Options that decide the rows; the codec by its fingerprint, since its folder may move."""
        return {"codec": self.description.codec_fingerprint, **self.settings.values()}

    def reads(self, argument: Argument, path: str, kind: Kind | None) -> bool:
        """Read Parquet, JSON lines, and files with the codes of one clip."""
        return kind in self.kinds or path.lower().endswith(FILE_SUFFIXES)

    @property
    def cutting(self) -> CuttingPolicy:
        """Units of `part_megabytes`."""
        return CuttingPolicy(unit_bytes=self.settings.part_megabytes * 1e6, empty_files=True)

    @property
    def first_pass(self) -> FirstPass:
        """Lists all ids, since an id may be in several files."""
        return FirstPass(IdsJob(self.rows, self.options(), self.kinds), list_duplicates)

    @property
    def reporter(self) -> JobReporter:
        """Counts and charts how often each code occurs."""
        return TableReporter(self.description)

    def start(self, context: WorkerContext) -> RunUnit:
        """Load the list of duplicates."""
        duplicates = {} if context.first_pass is None else read_duplicates(context.first_pass)
        return partial(self._write_part, duplicates)

    def _write_part(self, duplicates: Mapping[int, Mapping[str, str]], unit: Unit, output: UnitOutput) -> None:
        """Write `part-NNNNNN.parquet`, and the counts of its codes."""
        metadata = TableMetadata.of(self.description, unit_hash(header_of(self), unit))
        path = output.folder / part_name(unit.number)
        counts = CodeCounts(self.description.n_codebooks, self.description.codebook_size)
        same = duplicates.get(unit.number, {})
        output.clock.switch(WRITING)
        with TokenTableWriter(path, metadata) as writer:
            for imported in self.rows.of_unit(unit):
                row = _without_duplicate(imported, same)
                for name in imported.found.left_out:
                    output.leave_unused(imported.dataset, Unused("columns", name, example=imported.source))
                if isinstance(row, AudioError):
                    seconds = imported.row.duration if isinstance(imported.row, TokenRow) else None
                    output.read(imported.dataset, seconds)
                    output.reject(Reject.of(row, imported.dataset, imported.source, "read", duration=seconds))
                    continue
                output.read(imported.dataset, row.duration)
                output.keep(imported.dataset, row.duration, row.codes.size, imported.found.span)
                output.observe("duration", int(row.duration))
                counts.add(row.codes)
                writer.write(row)
        if writer.n_rows:
            counts.write(output, unit.number)
        else:
            path.unlink()


def _without_duplicate(imported: ImportedRow, duplicates: Mapping[str, str]) -> TokenRow | AudioError:
    """Return the row of the table, or an error if an earlier row has its id."""
    row = imported.row
    if isinstance(row, AudioError) or imported.place not in duplicates:
        return row
    return AudioError(f"Its key {row.id} is also that of {duplicates[imported.place]}.", "duplicate")
