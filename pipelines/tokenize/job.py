"""`tokenize`: encodes audio files and tars to a token table."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from pydantic import JsonValue

from codectok.audio.spans import Span
from codectok.checkpoints.hub import resolve_codec_directory
from codectok.codec import Codec
from codectok.config import StrictModel
from codectok.device import check_precision, device_class, resolve_device
from codectok.errors import AudioError, InputError
from codectok.evaluation.codebook import CodebookUse, count_codes
from codectok.model.clip_encoder import ClipEncoder
from codectok.names import printable
from codectok.pipelines.engine.job import Job, Server, ServerCall, Tally, UnitOutput, UnitRecord
from codectok.pipelines.engine.output import unit_hash
from codectok.pipelines.engine.plan import Unit, load_plan, names_of_sources
from codectok.pipelines.engine.planning import header_of
from codectok.sources.clip import Clip
from codectok.sources.clips import count_undecodable, readable_clips
from codectok.sources.listing import JOB_FOLDER, Listing
from codectok.sources.rejects import Reject
from codectok.storage import Storage, open_storage
from codectok.tokens.clips import decoded_blocks, encode_clips
from codectok.tokens.slicing import cut_row
from codectok.tokens.table import TableMetadata, TokenRow, TokenTableWriter

from .encoder_server import EncoderServer, RemoteEncoder, load_codec
from .options import TokenizeOptions

STATISTICS_FILE = f"{JOB_FOLDER}/stats.json"
CODE_COUNTS = f"{JOB_FOLDER}/codes"
# Minutes of work, which a kill loses. Several workers share a GPU, so that a small corpus needs several parts.
CPU_PART_SECONDS = 3600.0
GPU_PART_SECONDS = 6 * 3600.0


class TokenStatistics(StrictModel):
    """Contents of `stats.json`; `codebooks` are in the order of the table's columns."""

    rows: int
    hours: float
    frames: int
    codes: int
    codebooks: tuple[CodebookUse, ...]


class TokenizeJob(Job):
    """Encodes every clip of a unit into one Parquet file: a row for each audio file and each sample of a tar.

    Args:
        options: codec and settings.
        gpu_model: model of the cluster's GPUs, for a driver without a GPU.
    """

    verb = "tokenize"
    row_name = "rows"
    bytes_version = 2  # 2: parts record how codebooks are grouped
    output_bytes_per_second = 400.0  # 93.75 codes of 2 bytes, hardly compressible, and the rest of the row

    def __init__(self, options: TokenizeOptions, gpu_model: str | None = None) -> None:
        # Absolute, since workers run elsewhere; on the CPU, since the GPU's memory is for the workers.
        folder = resolve_codec_directory(options.codec).resolve()
        self.settings = replace(options, codec=str(folder))
        codec = Codec.from_pretrained(folder, device="cpu", pack_frames=options.pack_frames)
        device = torch.device("cuda") if gpu_model else resolve_device(options.device)
        check_precision(options.dtype, device)
        self.device_class = gpu_model or device_class(device)
        # The description of the codec on the device where it encodes.
        self.description = codec.describe().model_copy(update={"dtype": options.dtype, "device": self.device_class})
        self.frame_size = codec.frame_size
        self._geometry = codec.geometry
        self._encoder: ClipEncoder | None = None

    def options(self) -> Mapping[str, JsonValue]:
        """Options that decide the codes: the codec by its fingerprint, not by its path."""
        on_cpu = self.device_class == "cpu"
        return {
            "codec": self.description.codec_fingerprint,
            "dtype": self.settings.dtype,
            "pack_frames": self.description.pack_frames,
            "device": self.device_class,
            "encoder_threads": self.settings.encoder_threads if on_cpu else None,
            "max_seconds": self.settings.max_seconds,
            "part_seconds": self.unit_seconds,
        }

    def check_sources(self, listing: Listing) -> None:
        """Raise `InputError` for shards of two jobs with recordings of the same name, whose keys could collide."""
        folders = {
            f"{listing.roots[dataset]}/{path.rpartition('/')[0]}".rstrip("/")
            for dataset, path, kind in zip(listing.datasets, listing.paths, listing.kinds, strict=True)
            if kind == "tar"
        }
        owners: dict[tuple[str, bytes], str] = {}
        for folder in sorted(folders) if len(folders) > 1 else ():
            storage = open_storage(folder)
            plan = load_plan(storage, {})
            if plan is None or plan.header.verb != "shard":
                continue
            for recording in sorted({(dataset, path) for dataset, path, _ in names_of_sources(storage, plan)}):
                if owners.setdefault(recording, folder) != folder:
                    name = printable(f"{recording[0]}/{recording[1].decode('utf-8', 'surrogateescape')}")
                    raise InputError(
                        f"{owners[recording]} and {folder} both hold segments of {name}, whose ids could collide;"
                        " make a table of each, or shard other recordings under another name (NAME=SOURCE)."
                    )

    @property
    def unit_seconds(self) -> float:
        """Seconds of audio per part."""
        default = CPU_PART_SECONDS if self.device_class == "cpu" else GPU_PART_SECONDS
        return self.settings.part_seconds or default

    @property
    def threads(self) -> int:
        """Threads of a worker; workers of a GPU only decode."""
        return self.settings.encoder_threads if self.device_class == "cpu" else 1

    def server(self) -> Server | None:
        """A GPU encodes for several workers, who decode."""
        return None if self.device_class == "cpu" else EncoderServer(self.settings, self.description, self.device_class)

    def connect(self, call: ServerCall) -> None:
        """Let the server encode."""
        self._encoder = ClipEncoder(self._geometry, RemoteEncoder(call, self.device_class != "cpu"))

    def rehearse(self, unit: Unit) -> None:
        """Decode everything."""
        for clip in _readable_clips(unit, None):
            with suppress(AudioError):
                for _ in decoded_blocks(clip, self.description.sample_rate):
                    pass

    def set_up(self) -> None:
        """Load the codec, unless a server has it."""
        if self._encoder is None:
            self._encoder = load_codec(self.settings, self.description, self.device_class).clip_encoder

    def run(self, unit: Unit, output: UnitOutput) -> None:
        """Write `part-NNNNNN.parquet`, and the counts of its codes."""
        assert self._encoder is not None, "set_up comes first"
        metadata = TableMetadata.of(self.description, unit_hash(header_of(self), unit))
        path = output.folder / f"part-{unit.number:06d}.parquet"
        counts = _CodeCounts(self.description.n_codebooks, self.description.codebook_size)
        with TokenTableWriter(path, metadata) as writer:
            for clip, row in encode_clips(self._encoder, _readable_clips(unit, output)):
                if not isinstance(row, AudioError):
                    output.read(clip.dataset, row.duration)
                    for part in self._slices(row, clip.span):
                        if isinstance(part, AudioError):
                            output.reject(
                                Reject.of(part, clip.dataset, clip.source, "slice", row.start, duration=row.duration)
                            )
                            continue
                        output.keep(clip.dataset, part.duration, part.codes.size)
                        output.observe("duration", int(part.duration))
                        counts.add(part.codes)
                        writer.write(part)
                else:
                    # Rejects of version 2 have no start.
                    count_undecodable(clip, row, output, start=0.0)
        if writer.n_rows:
            counts.write(output, unit.number)
        else:
            path.unlink()

    def finish(self, storage: Storage, records: Sequence[UnitRecord]) -> Sequence[str]:
        """Write `stats.json`."""
        shape = (self.description.n_codebooks, self.description.codebook_size)
        statistics = statistics_of(Tally.sum(record.total for record in records), _sum_of_counts(storage, shape))
        storage.write(STATISTICS_FILE, statistics.model_dump_json().encode() + b"\n")
        return [STATISTICS_FILE]

    def charts(self, storage: Storage) -> Mapping[str, Mapping[int, int]]:
        """Counts of the codes of each codebook."""
        charts = {}
        for number, use in enumerate(read_statistics(storage).codebooks):
            facts = f"{use.used:,} of {len(use.counts):,} used, {use.entropy:.2f} bits a code"
            charts[f"Codes of codebook {number}: {facts}"] = dict(enumerate(use.counts))
        return charts

    def _slices(self, row: TokenRow, span: Span) -> Iterator[TokenRow | AudioError]:
        if self.settings.max_seconds is None:
            return iter([row])
        return cut_row(row, span, self.settings.max_seconds, self.description.sample_rate, self.frame_size)


def statistics_of(total: Tally, counts: np.ndarray) -> TokenStatistics:
    """Compute the statistics of a table from its counts [n_codebooks, codebook_size]."""
    return TokenStatistics(
        rows=total.rows,
        hours=total.seconds / 3600,
        frames=total.codes // len(counts),
        codes=total.codes,
        codebooks=tuple(CodebookUse.of(counts_of_codebook) for counts_of_codebook in counts),
    )


def read_statistics(storage: Storage) -> TokenStatistics:
    """Read the statistics of a finished table."""
    return TokenStatistics.model_validate_json(storage.read(STATISTICS_FILE))


def counts_name(unit: int) -> str:
    """Return the name of the file with the code counts of a unit."""
    return f"{CODE_COUNTS}/{unit:06d}.parquet"


class _CodeCounts:
    """Counts of each code of each codebook."""

    def __init__(self, n_codebooks: int, codebook_size: int) -> None:
        self._counts = np.zeros((n_codebooks, codebook_size), np.int64)

    def add(self, codes: np.ndarray) -> None:
        """Count `codes` [n_frames, n_codebooks]."""
        count_codes(self._counts, codes)

    def write(self, output: UnitOutput, unit: int) -> None:
        """Write the counts beside the unit's other files."""
        path = output.folder / counts_name(unit)
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"count": self._counts.reshape(-1)}), path, compression="zstd")


def _sum_of_counts(storage: Storage, shape: tuple[int, int]) -> np.ndarray:
    total = np.zeros(shape, np.int64)
    for name in storage.sizes(CODE_COUNTS):
        counts = pq.read_table(io.BytesIO(storage.read(name)))["count"].to_numpy()
        total += counts.reshape(shape)
    return total


def _readable_clips(unit: Unit, output: UnitOutput | None) -> Iterator[Clip]:
    """Yield the clips of all sources of `unit`; unreadable ones are rejected in `output`, if given."""
    for source in unit.sources:
        yield from readable_clips(source, output)
