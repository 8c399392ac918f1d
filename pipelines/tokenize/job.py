"""Job `tokenize`: encodes audio files and tars into a token table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial

import torch
from pydantic import JsonValue

from codectok.audio.spans import Span
from codectok.codec import Codec
from codectok.codecs.encoders import ClipEncoder
from codectok.description import CodecDescription
from codectok.device import check_precision, device_class, resolve_device
from codectok.errors import AudioError, InputError
from codectok.loading import absolute_codec_name, check_fingerprint, kernels_of_workers, load_codec
from codectok.names import printable
from codectok.phases import WRITING
from codectok.pipelines.engine.job import Job, JobReporter, RunUnit, Server, WorkerContext
from codectok.pipelines.engine.output.folder import unit_hash
from codectok.pipelines.engine.output.records import Counts, UnitRecord
from codectok.pipelines.engine.output.unit_files import part_name
from codectok.pipelines.engine.output.unit_output import UnitOutput
from codectok.pipelines.engine.planning.cutting import CuttingPolicy
from codectok.pipelines.engine.planning.plan import load_plan, names_of_sources
from codectok.pipelines.engine.planning.reading import READING_OPTIONS, reading_options
from codectok.pipelines.engine.planning.store import header_of
from codectok.pipelines.engine.planning.unit import Unit
from codectok.pipelines.engine.timing import CODEC
from codectok.pipelines.engine.unit_clips import clips_of_unit, reject_rest
from codectok.sources.clips import UnusedSound, count_undecodable
from codectok.sources.listing.sources import Listing
from codectok.sources.parquet.check import check_audio_columns
from codectok.sources.rejects import Reject
from codectok.storage import Storage, open_storage
from codectok.tokens.clips import DamagedRest, encode_clips
from codectok.tokens.mixing import note_of_versions
from codectok.tokens.slicing import cut_row
from codectok.tokens.table import TableMetadata, TokenRow, TokenTableWriter, read_metadata

from .encoder_server import EncoderServer, RemoteEncoder, load_codec_of_job
from .options import TokenizeOptions
from .statistics import CodeCounts, read_statistics, statistics_of, sum_of_code_counts
from .verify import TableVerifier

# A killed worker loses minutes of work. On a GPU, parts are small enough that several workers share a small corpus.
CPU_UNIT_SECONDS = 3600.0
GPU_UNIT_SECONDS = 6 * 3600.0


class TokenizeJob(Job):
    """Encodes every clip of a unit into one Parquet file: a row for each audio file and each sample of a tar.

    Args:
        options: which codec, and how.
        gpu_model: name of the cluster's GPUs, for a driver without a GPU; None to use `options.device`.
    """

    verb = "tokenize"
    row_name = "rows"
    # 5: other last bits in bfloat16 on a GPU, and metadata of parts that names the kernels. 6: slices with text
    # have the further labels of their own supervisions, columns of Parquet with one name in and beside a struct are
    # both kept, more formats are found in binary columns, and `extra` has the id that a corpus gives a clip.
    bytes_version = 6
    verifier = TableVerifier
    output_bytes_per_second = 400.0  # 93.75 codes of 2 bytes, hardly compressible, and the rest of the row

    def __init__(self, options: TokenizeOptions, gpu_model: str | None = None) -> None:
        # An absolute path, since workers run elsewhere. On the CPU, to leave the GPU's memory to the workers.
        self.settings = replace(options, codec=absolute_codec_name(options.codec))
        on_cpu = "float32" if options.dtype == "tf32" else options.dtype
        codec = load_codec(
            self.settings.codec, "cpu", on_cpu, options.pack_frames, options.batch_seconds, encoder_only=True
        )
        if options.dtype == "tf32" and not isinstance(codec, Codec):
            raise InputError(f"The codec {options.codec} computes in float32 only; leave --dtype out.")
        device = torch.device("cuda") if gpu_model else resolve_device(options.device)
        check_precision(options.dtype, device)
        self.device_class = gpu_model or device_class(device)
        elsewhere = gpu_model is not None
        kernels = kernels_of_workers(codec, options.codec, options.kernels, device, options.dtype, elsewhere)
        # Description of the codec on the device of the workers.
        self.description = codec.describe().model_copy(
            update={
                "dtype": options.dtype,
                "tf32": options.dtype == "tf32",
                "device": self.device_class,
                "kernels": kernels,
            }
        )
        self.frame_size = codec.frame_size
        self._batching = codec.batching(on_gpu=self.device_class != "cpu")

    def options(self) -> Mapping[str, JsonValue]:
        """Everything that determines the codes; the codec by its fingerprint, since its folder may move."""
        on_cpu = self.device_class == "cpu"
        return {
            "codec": self.description.codec_fingerprint,
            "dtype": self.settings.dtype,
            "pack_frames": self.description.pack_frames,
            "batch_seconds": self.description.batch_seconds,
            "device": self.device_class,
            "kernels": self.description.kernels,
            "encoder_threads": self.settings.encoder_threads if on_cpu else None,
            "max_seconds": self.settings.max_seconds,
            "part_seconds": self.cutting.unit_seconds,
            **reading_options(**{name: getattr(self.settings, name) for name in READING_OPTIONS}),
            **self.settings.sound.values(),
        }

    def check_sources(self, listing: Listing) -> None:
        """Raise an `InputError` if the audio column of Parquet files is unknown, or keys of segments could repeat.

        Keys can repeat where shards of two jobs share the name of a recording.
        """
        check_audio_columns(listing, self.settings.audio_column)
        folders = {
            f"{listing.roots[dataset]}/{path.rpartition('/')[0]}".rstrip("/") or "/"
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
    def cutting(self) -> CuttingPolicy:
        """Units of `part_seconds`."""
        default = CPU_UNIT_SECONDS if self.device_class == "cpu" else GPU_UNIT_SECONDS
        return CuttingPolicy(self.settings.part_seconds or default)

    @property
    def threads(self) -> int:
        """`encoder_threads` on a CPU; 1 with a GPU, where workers only decode."""
        return self.settings.encoder_threads if self.device_class == "cpu" else 1

    @property
    def server(self) -> Server | None:
        """An encoder on a GPU; workers decode for it. None on CPUs, where each worker encodes."""
        return None if self.device_class == "cpu" else EncoderServer(self.settings, self.description, self.device_class)

    @property
    def reporter(self) -> JobReporter:
        """Counts and charts how often each code occurs."""
        return TableReporter(self.description)

    def resume_notes(self, storage: Storage, records: Sequence[UnitRecord]) -> Sequence[str]:
        """Say if other versions of libraries made the first or the last finished part."""
        parts = [file.name for record in records for file in record.files if part_name(record.unit) == file.name]
        finished = []
        for name in dict.fromkeys([*parts[:1], *parts[-1:]]):
            with suppress(InputError):  # a damaged part, which `verify` reports
                finished.append((name, read_metadata(f"{storage.url}/{name}")))
        note = note_of_versions([("New parts", TableMetadata.of(self.description)), *finished])
        return [] if note is None else [note]

    def check_machine(self) -> None:
        """Raise a `CodectokError` if the machine has another codec."""
        check_fingerprint(self.settings.codec, self.description.codec_fingerprint)

    def start(self, context: WorkerContext) -> RunUnit:
        """Load the codec, unless a server has it."""
        if context.server is None:
            with context.clock.during(CODEC):
                encoder = load_codec_of_job(self.settings, self.description, self.device_class).clip_encoder
        else:
            encoder = self._batching.clip_encoder(RemoteEncoder(context.server))
        return partial(self._write_part, encoder)

    def _write_part(self, encoder: ClipEncoder, unit: Unit, output: UnitOutput) -> None:
        """Write `part-NNNNNN.parquet`, and the counts of its codes."""
        metadata = TableMetadata.of(self.description, unit_hash(header_of(self), unit))
        path = output.folder / part_name(unit.number)
        counts = CodeCounts(self.description.n_codebooks, self.description.codebook_size)
        sound = self.settings.sound
        unused = UnusedSound(output, sound)
        output.clock.switch(WRITING)
        with TokenTableWriter(path, metadata) as writer:
            clips = clips_of_unit(unit, output)
            for clip, row in encode_clips(encoder, clips, sound, unused.add, keep_damaged=True, clock=output.clock):
                if isinstance(row, TokenRow):
                    output.read(clip.dataset, row.duration)
                    for cut in self._slices(row, clip.span):
                        if isinstance(cut, AudioError):
                            output.reject(
                                Reject.of(cut, clip.dataset, clip.source, "slice", row.start, duration=row.duration)
                            )
                            continue
                        output.keep(clip.dataset, cut.duration, cut.codes.size, replace(clip.span, text=cut.text))
                        output.observe("duration", int(cut.duration))
                        counts.add(cut.codes)
                        writer.write(cut)
                elif isinstance(row, DamagedRest):
                    reject_rest(clip, row, output)
                else:
                    count_undecodable(clip, row, output)
        if writer.n_rows:
            counts.write(output, unit.number)
        else:
            path.unlink()

    def _slices(self, row: TokenRow, span: Span) -> Iterator[TokenRow | AudioError]:
        if self.settings.max_seconds is None:
            return iter([row])
        return cut_row(row, span, self.settings.max_seconds, self.description.sample_rate, self.frame_size)


class TableReporter(JobReporter):
    """Statistics of a token table: how often each code occurs."""

    def __init__(self, description: CodecDescription) -> None:
        self._description = description

    def statistics(self, storage: Storage, total: Counts) -> Mapping[str, JsonValue]:
        """Statistics of the table."""
        shape = (self._description.n_codebooks, self._description.codebook_size)
        statistics = statistics_of(total, sum_of_code_counts(storage, shape))
        return statistics.model_dump(mode="json", exclude={"timing"})

    def charts(self, storage: Storage) -> Mapping[str, Mapping[int, int]]:
        """Number of occurrences of each code, a chart for each codebook."""
        charts = {}
        for number, use in enumerate(read_statistics(storage).codebooks):
            facts = f"{use.used:,} of {len(use.counts):,} used, {use.entropy:.2f} bits a code"
            charts[f"Codes of codebook {number}: {facts}"] = dict(enumerate(use.counts))
        return charts
