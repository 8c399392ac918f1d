"""`tokenize`: audio files and tars into the token table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from pydantic import JsonValue

from codectok.checkpoints.hub import resolve_codec_directory
from codectok.codec import Codec, device_class, resolve_device
from codectok.errors import AudioError, CodectokError
from codectok.precision import Precision, check_precision
from codectok.tokens.clips import Clip, encode_clips
from codectok.tokens.table import TableMetadata, TokenTableWriter

from .clips import clips_of
from .job import WORKER_THREADS, Job, UnitOutput
from .output import unit_hash
from .plan import Unit
from .planning import check_unit_seconds
from .rejects import Reject


@dataclass(frozen=True)
class TokenizeOptions:
    """Which codec, in which arithmetic, on which device; `part_seconds` is the estimated audio of a part."""

    codec: str
    device: str = "auto"
    dtype: Precision = "float32"
    pack_frames: int | None = None
    part_seconds: float = 3600.0


class TokenizeJob(Job):
    """Encodes every clip of a unit into one Parquet file: a row for each audio file and each sample of a tar."""

    verb = "tokenize"
    row_name = "clips"
    output_bytes_per_second = 400.0  # 93.75 codes of 2 bytes, hardly compressible, and the rest of the row

    def __init__(self, options: TokenizeOptions) -> None:
        check_unit_seconds(options.part_seconds)
        # Absolute, since workers run elsewhere; on the CPU, since a GPU's memory is theirs.
        folder = resolve_codec_directory(options.codec).resolve()
        self.settings = replace(options, codec=str(folder))
        described = Codec.from_pretrained(folder, device="cpu", pack_frames=options.pack_frames).describe()
        self.fingerprint, self.pack_frames = described.codec_fingerprint, described.pack_frames
        device = resolve_device(options.device)
        check_precision(options.dtype, device)
        self.device_class = device_class(device)
        self._codec: Codec | None = None

    def options(self) -> Mapping[str, JsonValue]:
        """What decides the codes: the codec itself, not where it lies."""
        return {
            "codec": self.fingerprint,
            "dtype": self.settings.dtype,
            "pack_frames": None if self.device_class == "cpu" else self.pack_frames,
            "device": self.device_class,
            "threads": WORKER_THREADS,
            "part_seconds": self.settings.part_seconds,
        }

    @property
    def unit_seconds(self) -> float:
        """Audio of a part."""
        return self.settings.part_seconds

    def set_up(self) -> None:
        """Load the codec, the same that the job was made with, on the same kind of device."""
        settings = self.settings
        self._codec = Codec.from_pretrained(settings.codec, settings.device, settings.dtype, settings.pack_frames)
        if self._codec.fingerprint != self.fingerprint or self._codec.device_class != self.device_class:
            raise CodectokError(
                f"A worker found another codec or device than the job started with: {self.settings.codec}"
                f" on {self._codec.device_class}; give all workers the same."
            )

    def run(self, unit: Unit, output: UnitOutput) -> None:
        """Write `part-NNNNNN.parquet`."""
        codec = self._codec
        assert codec is not None, "set_up comes first"
        metadata = TableMetadata.of(codec.describe(), unit_hash(self, unit))
        path = output.folder / f"part-{unit.number:06d}.parquet"
        unknown = {source.name for source in unit.sources if source.kind == "unknown"}
        with TokenTableWriter(path, metadata) as writer:
            for clip, row in encode_clips(codec.clip_encoder, _readable_clips(unit, output)):
                if not isinstance(row, AudioError):
                    output.read(clip.dataset, row.duration)
                    output.keep(clip.dataset, row.duration, row.codes.size)
                    writer.write(row)
                elif clip.source in unknown and row.reason in ("unreadable", "empty"):
                    output.ignore(clip.dataset)
                else:
                    output.read(clip.dataset)
                    output.reject(Reject.of(row, clip.dataset, clip.source, "decode"))
        if not writer.n_rows:
            path.unlink()


def _readable_clips(unit: Unit, output: UnitOutput) -> Iterator[Clip]:
    """The clips of all sources of `unit`; what cannot be read is rejected."""
    for source in unit.sources:
        for clip in clips_of(source):
            if clip is None:
                output.ignore(source.dataset)
            elif isinstance(clip, Reject):
                output.read(clip.dataset)
                output.reject(clip)
            else:
                yield clip
