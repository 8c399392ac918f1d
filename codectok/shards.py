"""WebDataset tars of audio segments: writing them and their index, and reading the index.

A sample is two neighbouring members, `KEY.flac` (or `.wav`) and `KEY.json`; stock `webdataset` reads the tars.
"""

from __future__ import annotations

import io
import math
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
import pyarrow as pa
import pyarrow.ipc
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from codectok.audio.files import encode_audio

from .choices import AudioFormat
from .config import StrictModel
from .errors import InputError, PassingError
from .keys import VALID_KEY
from .names import JOB_FOLDER
from .storage import LocalStorage, Storage

MANIFEST_FILE = "shards.json"
INDEX_FOLDER = f"{JOB_FOLDER}/index"
INDEX_SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),
        pa.field("n_samples", pa.int64(), nullable=False),
        pa.field("category", pa.dictionary(pa.int32(), pa.string())),
    ]
)


class Sample(BaseModel):
    """The JSON member of a sample.

    Attributes:
        dataset: name of the dataset.
        source: recording that the segment was cut from.
        start: in seconds of the source.
        duration: in seconds.
        sample_rate: in Hz.
        n_samples: length in samples.
        loudness: integrated loudness in LUFS; None for silence.
        bandwidth: highest audible frequency in Hz.
        dnsmos: score from 1 to 5; None if not measured.
        id, text, language, speaker, category: from a manifest; None if unknown.
        extra: further labels; None without any.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    dataset: str
    source: str
    start: float
    duration: float
    sample_rate: int
    n_samples: int
    loudness: float | None = None
    bandwidth: int | None = None
    dnsmos: float | None = None
    id: str | None = None
    text: str | None = None
    language: str | None = None
    speaker: str | None = None
    category: str | None = None
    extra: dict[str, JsonValue] | None = None


# Of one tar; the sum over all tars stays far below 2^63.
MAX_SAMPLES = 1 << 40


class ShardEntry(StrictModel):
    """One tar in `shards.json`; `categories` counts its samples by category."""

    name: str
    samples: Annotated[int, Field(ge=0, le=MAX_SAMPLES)]
    seconds: Annotated[float, Field(ge=0)]
    bytes: Annotated[int, Field(ge=0)]
    sha256: str
    split: str = "train"
    categories: dict[str, int] = Field(default_factory=dict)


class ShardManifest(StrictModel):
    """Contents of `shards.json`."""

    format: Literal["codectok.shards"] = "codectok.shards"
    version: Literal[1] = 1
    sample_rate: int
    shards: tuple[ShardEntry, ...]


@dataclass(frozen=True)
class IndexedSample:
    """Place of the audio of a sample in its tar: `size` bytes from `offset` on."""

    key: str
    offset: int
    size: int
    n_samples: int
    category: str | None = None


class ShardWriter:
    """Context manager that writes one tar; equal samples are written as equal bytes.

    Attributes:
        index: the samples written so far, for `write_index`.
    """

    def __init__(self, path: Path, audio_format: AudioFormat = "flac") -> None:
        self.audio_format: AudioFormat = audio_format
        self.index: list[IndexedSample] = []
        self._file = path.open("wb")
        self._tar = tarfile.TarFile(fileobj=self._file, mode="w", format=tarfile.USTAR_FORMAT)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._tar.close()
        self._file.close()

    def write(self, key: str, samples: np.ndarray, description: Sample) -> None:
        """Append mono `samples` [n] and their description under `key`."""
        if not VALID_KEY.fullmatch(key):
            raise ValueError(f"{key!r} is not a valid key")
        audio = encode_audio(samples, description.sample_rate, self.audio_format)
        self._add(f"{key}.{self.audio_format}", audio)
        padded_size = math.ceil(len(audio) / tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
        offset = self._file.tell() - padded_size
        self.index.append(IndexedSample(key, offset, len(audio), description.n_samples, description.category))
        self._add(f"{key}.json", description.model_dump_json(exclude_none=True).encode())

    def _add(self, name: str, data: bytes) -> None:
        member = tarfile.TarInfo(name)  # time, owner and group are 0 by default
        member.size = len(data)
        member.mode = 0o644
        self._tar.addfile(member, io.BytesIO(data))


def write_index(path: Path, index: list[IndexedSample]) -> None:
    """Write the index of a shard as an Arrow file."""
    columns = {name: [getattr(sample, name) for sample in index] for name in INDEX_SCHEMA.names}
    table = pa.table(columns, schema=INDEX_SCHEMA)
    with pa.ipc.new_file(path, INDEX_SCHEMA) as writer:
        writer.write_table(table)


def index_name(shard_name: str) -> str:
    """Return the name of the index of a shard, relative to the folder of shards."""
    return f"{INDEX_FOLDER}/{shard_name.removesuffix('.tar')}"


def index_path(folder: Path, shard_name: str) -> Path:
    """Return the path of the index of a shard on a disk."""
    return folder / index_name(shard_name)


def read_index(storage: Storage, shard_name: str) -> pa.Table:
    """Read the index of a shard, with the columns of `INDEX_SCHEMA`.

    Raises:
        InputError: the index is missing or damaged.
        PassingError: the store failed; another try may succeed.
    """
    name = index_name(shard_name)
    try:
        return parse_index(storage.read(name))
    except (FileNotFoundError, pa.ArrowInvalid) as error:
        raise InputError(f"The index {storage.url}/{name} cannot be read: {error}; write the shards again.") from None
    except Exception as error:  # each client of a store has its own errors
        raise PassingError(f"The index {storage.url}/{name} cannot be read now: {error}.") from None


def parse_index(data: bytes) -> pa.Table:
    """Parse the bytes of an index."""
    return pa.ipc.open_file(pa.BufferReader(data)).read_all()


def read_manifest(storage: Storage) -> ShardManifest:
    """Read `shards.json`; raise `InputError` if it is missing or damaged."""
    try:
        data = storage.read(MANIFEST_FILE)
    except (FileNotFoundError, NotADirectoryError):
        message = f"{storage.url} holds no {MANIFEST_FILE}; choose a folder written by `codectok shard`."
        raise InputError(message) from None
    return parse_manifest(data, f"{storage.url}/{MANIFEST_FILE}")


def first_sample(folder: Path) -> tuple[str, Sample] | None:
    """Return key and description of the first sample in a folder of shards; None if there are no shards.

    Raises:
        InputError: `shards.json` or the tar is damaged.
    """
    shards = read_manifest(LocalStorage(folder)).shards
    if not shards:
        return None
    path = folder / shards[0].name
    try:
        with tarfile.open(path) as tar:
            tar.next()
            member = tar.next()
            data = tar.extractfile(member) if member is not None else None
            if member is not None and data is not None:
                return member.name.partition(".")[0], Sample.model_validate_json(data.read())
    except (tarfile.TarError, EOFError, OSError, ValueError, OverflowError, MemoryError):
        pass  # raised below
    raise InputError(f"{path} is damaged; run `codectok verify {folder}` to check the other files.")


def parse_manifest(data: bytes, where: str) -> ShardManifest:
    """Parse the bytes of a `shards.json`; raise `InputError`, which names `where`, if they are damaged."""
    try:
        return ShardManifest.model_validate_json(data)
    except ValidationError:
        raise InputError(f"{where} is damaged or of another version; write the shards again.") from None
