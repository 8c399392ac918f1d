"""Token table (version 1): Parquet files with one row per clip."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Literal, Self, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import Field, ValidationError, model_validator

from codectok.choices import Precision
from codectok.description import UNKNOWN, CodecDescription
from codectok.errors import InputError, damage_errors, shortened
from codectok.names import utf8_path
from codectok.parquet_damage import PARQUET_DAMAGE
from codectok.sources.row_ranges import batches_of_group
from codectok.storage import is_url, open_file_system

from .filters import parse_filter
from .mixing import merge_metadata
from .table_checks import TABLE_REMEDY, check_columns, check_values

METADATA_KEY = b"codectok"
TABLE_FORMAT: Literal["codectok.tokens"] = "codectok.tokens"
# Readers overflow at 2^31 values of a column chunk, and hold a row group in memory.
ROW_GROUP_CODES = 1 << 22
ROW_GROUP_CHARACTERS = 1 << 28
LARGEST_UINT16_CODEBOOK = 1 << 16
# Codes of all codebooks together: counting them takes 8 bytes each.
MAX_CODES = 1 << 26


class TableMetadata(CodecDescription):
    """Description of a file's codes, stored as JSON under the key `codectok` of the Parquet metadata.

    Attributes:
        unit_hash: hash of the unit of work that wrote the file; None without one.
        mixed: values of each field of the description in which the codes differ; the field itself is "mixed" or unset.
    """

    format: Literal["codectok.tokens"] = TABLE_FORMAT
    version: Literal[1] = 1
    unit_hash: str | None = None
    mixed: dict[str, tuple[str, ...]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.n_codebooks * self.codebook_size > MAX_CODES:
            raise ValueError(f"n_codebooks x codebook_size must be at most {MAX_CODES:,}")
        return self

    @property
    def precision(self) -> Precision:
        """Arithmetic in which the codes were computed; "float32" if it is mixed or unknown."""
        return "float32" if "dtype" in self.mixed or self.dtype == UNKNOWN else cast(Precision, self.dtype)

    @property
    def made_with(self) -> str:
        """Readable arithmetic, device and versions that computed the codes, and values that are mixed."""
        mixed = "".join(f"; {name}: {' and '.join(values)}" for name, values in self.mixed.items())
        return f"{super().made_with}{mixed}"

    @property
    def code_type(self) -> type[np.unsignedinteger]:
        """Type of stored codes: 16 bits for up to 65,536 codes, else 32."""
        return np.uint16 if self.codebook_size <= LARGEST_UINT16_CODEBOOK else np.uint32

    @classmethod
    def of(cls, codec: CodecDescription, unit_hash: str | None = None) -> Self:
        """Create the metadata of codes from a codec's description."""
        return cls(**codec.model_dump(), unit_hash=unit_hash)


@dataclass(frozen=True)
class TokenRow:
    """A row of the token table: one clip.

    Attributes:
        id: unique within a table.
        source: file or sample that the clip comes from.
        dataset: name of its dataset.
        start, duration: position within the source, in seconds.
        n_samples: number of samples at the codec's rate.
        codes: int64 [n_frames, n_codebooks].
        text, language, speaker, category: labels; None if unknown.
        extra: further labels as JSON; None without any.
    """

    id: str
    source: str
    dataset: str
    start: float
    duration: float
    n_samples: int
    codes: np.ndarray
    text: str | None = None
    language: str | None = None
    speaker: str | None = None
    category: str | None = None
    extra: str | None = None


def table_schema(metadata: TableMetadata, more: Iterable[pa.Field] = ()) -> pa.Schema:
    """Return the schema of a table, followed by columns that users have added."""
    code = pa.from_numpy_dtype(metadata.code_type)
    required = [
        ("id", pa.string()),
        ("source", pa.string()),
        ("dataset", pa.dictionary(pa.int32(), pa.string())),
        ("start", pa.float64()),
        ("duration", pa.float64()),
        ("n_samples", pa.int64()),
        ("codes", pa.list_(pa.field("element", code, nullable=False))),
        ("n_frames", pa.int32()),
    ]
    optional = ["text", "language", "speaker", "category", "extra"]
    fields = [pa.field(name, kind, nullable=False) for name, kind in required]
    fields += [pa.field(name, pa.string()) for name in optional]
    return pa.schema([*fields, *more], metadata={METADATA_KEY: metadata.model_dump_json().encode()})


def columns_of_users(schema: pa.Schema, metadata: TableMetadata) -> list[pa.Field]:
    """Return the columns that users have added to a table, in order."""
    own = set(table_schema(metadata).names)
    return [pa.field(field.name, field.type) for field in schema if field.name not in own]


def types_of(columns: Iterable[pa.Field]) -> dict[str, str]:
    """Return the types of columns by name."""
    return {field.name: str(field.type) for field in columns}


class TokenTableWriter:
    """Context manager that writes one Parquet file of a token table, deterministically.

    Attributes:
        schema: of the file.
        n_rows: number of rows written so far.
    """

    def __init__(self, path: Path, metadata: TableMetadata) -> None:
        self.schema = table_schema(metadata)
        self._writer = table_writer(path, self.schema)
        self.n_rows = 0
        self._rows: list[TokenRow] = []
        self._buffered_codes = self._buffered_characters = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        if error is None:
            self._flush()
        self._writer.close()

    def write(self, row: TokenRow) -> None:
        """Append a row."""
        self._rows.append(row)
        self.n_rows += 1
        self._buffered_codes += row.codes.size
        self._buffered_characters += sum(map(len, (row.id, row.source, row.text or "", row.extra or "")))
        if self._buffered_codes >= ROW_GROUP_CODES or self._buffered_characters >= ROW_GROUP_CHARACTERS:
            self._flush()

    def _flush(self) -> None:
        if not self._rows:
            return
        columns = []
        for field in self.schema:
            values: list[Any]
            if field.name == "codes":
                values = [row.codes.reshape(-1).astype(field.type.value_type.to_pandas_dtype()) for row in self._rows]
            elif field.name == "n_frames":
                values = [len(row.codes) for row in self._rows]
            else:
                values = [getattr(row, field.name) for row in self._rows]
            columns.append(pa.array(values, type=field.type))
        self._writer.write_table(pa.Table.from_arrays(columns, schema=self.schema))
        self._rows, self._buffered_codes, self._buffered_characters = [], 0, 0


def hash_of_id(row_id: str) -> int:
    """Hash an id to 64 bits, to hold all ids of a table in memory."""
    return int.from_bytes(hashlib.blake2b(row_id.encode(errors="surrogateescape"), digest_size=8).digest(), "big")


def table_writer(place: Path | BinaryIO, schema: pa.Schema) -> pq.ParquetWriter:
    """Open a Parquet writer with the settings of token tables."""
    # Statistics of codes are useless to readers.
    statistics = [name for name in schema.names if name != "codes"]
    return pq.ParquetWriter(place, schema, compression="zstd", write_statistics=statistics)


@dataclass(frozen=True)
class TableFile:
    """One Parquet file of a table, at a path or URL."""

    place: str

    def __str__(self) -> str:
        return self.place

    @property
    def name(self) -> str:
        """File name without folder."""
        return PurePosixPath(self.place).name

    @property
    def stem(self) -> str:
        """File name without folder and suffix."""
        return PurePosixPath(self.place).stem

    @contextmanager
    def open(self) -> Iterator[pq.ParquetFile]:
        """Open the file for reading; a context manager.

        Raises:
            InputError: the file is missing, not Parquet, or damaged.
        """
        try:
            with ExitStack() as stack:
                if is_url(self.place):
                    files, path = open_file_system(self.place)
                else:
                    files, path = None, str(stack.enter_context(utf8_path(Path(self.place))))
                # Without pre-buffering, which under load sometimes fails to find row groups in its buffer.
                yield stack.enter_context(pq.ParquetFile(path, filesystem=files, pre_buffer=False))
        except (*PARQUET_DAMAGE, OSError) as error:
            reason = shortened(error)
            raise InputError(f"{self.place} cannot be read as Parquet: {reason}.") from None


def table_files(path: str | Path) -> list[TableFile]:
    """List the Parquet files of a table by name: `path` itself, or the files directly in the folder `path`."""
    place = str(path)
    if is_url(place):
        files, root = open_file_system(place)
        try:
            names = files.glob(f"{root.rstrip('/')}/*.parquet") if files.isdir(root) else [root]
        except Exception as error:  # every store's client raises its own errors
            raise InputError(f"{place} cannot be listed: {error}.") from None
        found = [TableFile(files.unstrip_protocol(name)) for name in sorted(names)]
    else:
        paths = sorted(Path(place).glob("*.parquet")) if Path(place).is_dir() else [path]
        found = [TableFile(str(file)) for file in paths]
    if not found:
        raise InputError(f"{path} holds no Parquet file; give a token table.")
    return found


def read_metadata(path: str | Path, allow_mixed: bool = False) -> TableMetadata:
    """Read the metadata of a table.

    Args:
        path: a Parquet file or a folder of them, or the URL of either.
        allow_mixed: accept files of one codec whose codes were computed differently.

    Raises:
        InputError: `path` is not a token table, or its files are mixed, see `codectok.tokens.mixing.merge_metadata`.
    """
    return merge_metadata([(str(file), _file_metadata(file)) for file in table_files(path)], allow_mixed)


def read_ids(path: str | Path) -> Iterator[str]:
    """Read the ids of the table at `path`, in order; raise `InputError` if the table is damaged."""
    for file in table_files(path):
        with file.open() as parquet:
            metadata = metadata_of_schema(parquet.schema_arrow, str(file))
            check_columns(parquet.schema_arrow, table_schema(metadata), str(file))
            for batch in parquet.iter_batches(columns=["id"], use_threads=False):
                with damage_errors(file, TABLE_REMEDY):
                    if batch["id"].null_count:
                        raise ValueError("a row has no id")
                    ids: list[str] = batch["id"].to_pylist()
                yield from ids


def read_rows(
    path: str | Path, ids: set[str] | None = None, where: str | None = None, allow_mixed: bool = False
) -> Iterator[TokenRow]:
    """Read the rows of the table at `path`, in order.

    Args:
        path: a Parquet file or a folder of them, or the URL of either.
        ids: ids to read; None for all.
        where: condition on the columns, see `codectok.tokens.filters`; None for all rows.
        allow_mixed: as in `read_metadata`.

    Raises:
        InputError: the table is damaged or mixed, or the condition is not valid.
    """
    metadata = read_metadata(path, allow_mixed)
    schema = table_schema(metadata)
    condition = None if where is None else parse_filter(where, schema)
    if ids is not None:
        chosen = pc.field("id").cast(pa.string()).isin(pa.array(sorted(ids), pa.string()))
        condition = chosen if condition is None else condition & chosen
    for file in table_files(path):
        with file.open() as parquet:
            check_columns(parquet.schema_arrow, table_schema(metadata), str(file))
            # By name, since users may have added columns.
            for group in range(parquet.num_row_groups):
                for batch in batches_of_group(parquet, group, schema.names):
                    yield from _chosen(batch, condition, metadata, str(file))


def _chosen(
    batch: pa.RecordBatch, condition: pc.Expression | None, metadata: TableMetadata, name: str
) -> Iterator[TokenRow]:
    if condition is None:
        yield from rows_of_batch(batch, metadata, name)
        return
    for chosen in pa.Table.from_batches([batch]).filter(condition).to_batches():
        yield from rows_of_batch(chosen, metadata, name)


def rows_of_group(file: TableFile, group: int, metadata: TableMetadata) -> list[TokenRow]:
    """Read the rows of one row group of a file."""
    with file.open() as parquet:
        check_columns(parquet.schema_arrow, table_schema(metadata), str(file))
        table = parquet.read_row_group(group, columns=table_schema(metadata).names, use_threads=False)
    return [row for batch in table.to_batches() for row in rows_of_batch(batch, metadata, str(file))]


def rows_of_batch(batch: pa.RecordBatch, metadata: TableMetadata, name: str) -> Iterator[TokenRow]:
    """Convert a batch of the columns of the file `name` to rows.

    Raises:
        InputError: a value is missing or impossible.
    """
    with damage_errors(name, TABLE_REMEDY):
        check_values(batch, table_schema(metadata), metadata.n_codebooks, metadata.codebook_size)
        # Codes are most of a table, so that they are not converted to Python lists.
        codes, borders = batch["codes"].values.to_numpy(), batch["codes"].offsets.to_numpy()
        others = batch.drop_columns(["codes", "n_frames"])
        names = others.schema.names
        records = list(zip(*(column.to_pylist() for column in others.columns), strict=True))
    places = borders.tolist()
    for start, stop, values in zip(places, places[1:], records, strict=False):
        own = codes[start:stop].astype(np.int64).reshape(-1, metadata.n_codebooks)
        yield TokenRow(codes=own, **dict(zip(names, values, strict=True)))


def _file_metadata(file: TableFile) -> TableMetadata:
    with file.open() as parquet:
        return metadata_of_schema(parquet.schema_arrow, str(file))


def metadata_of_schema(schema: pa.Schema, name: str) -> TableMetadata:
    """Read the metadata of the file `name` from its schema; raise `InputError` if it is not a token table."""
    found = (schema.metadata or {}).get(METADATA_KEY)
    if found is None:
        raise InputError(f"{name} is Parquet, but not a token table: it has no codectok metadata.")
    try:
        return TableMetadata.model_validate_json(found)
    except ValidationError:
        if TABLE_FORMAT.encode() not in found:
            raise InputError(f"{name} is Parquet of codectok, but not a token table.") from None
        raise InputError(f"{name} is a token table of a version that this codectok does not read.") from None
