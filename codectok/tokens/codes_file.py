"""Files of codes, as `codectok encode` writes them: `.npz` (an array per clip) or `.parquet` (a token table)."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from codectok.atomic import replacing
from codectok.errors import InputError, damage_errors, shortened
from codectok.names import FileNames, hash_of_name
from codectok.storage import is_url

from .table import TableMetadata, TokenRow, TokenTableWriter, read_ids, read_metadata, read_rows

NPZ_METADATA = "codectok"
CODES_SUFFIXES = (".npz", ".parquet")
# Codes of a clip, for each codebook: days of audio. As 64 bits they take up to four times as much when they are read.
MAX_CODEBOOK_BYTES = 1 << 27


def check_codes_path(path: Path) -> None:
    """Raise `InputError` if `path` has another suffix or exists."""
    if path.suffix not in CODES_SUFFIXES:
        raise InputError(f"{path} must end in .npz or .parquet; choose another name.")
    if path.exists():
        raise InputError(f"{path} already exists; choose another name.")


def write_codes(path: Path, metadata: TableMetadata, rows: Iterable[TokenRow]) -> int:
    """Write `rows` to `path`, under a temporary name until it is complete; return their number."""
    check_codes_path(path)
    write = _write_npz if path.suffix == ".npz" else _write_parquet
    with replacing(path) as temporary:
        return write(temporary, metadata, rows)


def read_codes_metadata(place: str | Path, allow_mixed: bool = False) -> TableMetadata:
    """Read the metadata of a file of codes, or of a token table at a path or URL.

    Raises:
        InputError: `place` is missing, holds no codes of this version, or is mixed and `allow_mixed` is False.
    """
    if is_url(str(place)):
        return read_metadata(place, allow_mixed)
    path = Path(place)
    if not path.exists():
        raise InputError(f"There is no file or folder {path}.")
    if path.suffix != ".npz":
        return read_metadata(path, allow_mixed)
    with _open_npz(path) as arrays:
        if NPZ_METADATA not in arrays:
            raise InputError(f"{path} was not written by codectok: it has no entry {NPZ_METADATA!r}.")
        with damage_errors(path, "encode the files again"):
            _check_size(arrays, NPZ_METADATA)
            described = str(arrays[NPZ_METADATA])
        try:
            return TableMetadata.model_validate_json(described)
        except ValidationError:
            raise InputError(f"{path} was written by a version of codectok that this one does not read.") from None


def read_codes(
    place: str | Path, ids: set[str] | None = None, where: str | None = None, allow_mixed: bool = False
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield pairs of id and codes int64 [n_frames, n_codebooks].

    See `read_clips` for arguments and errors.
    """
    return ((name, codes) for name, codes, _ in read_clips(place, ids, where, allow_mixed))


def read_clips(
    place: str | Path, ids: set[str] | None = None, where: str | None = None, allow_mixed: bool = False
) -> Iterator[tuple[str, np.ndarray, int | None]]:
    """Yield id, codes int64 [n_frames, n_codebooks] and the number of encoded samples; files of codes lack it.

    Args:
        place: a file of codes, or a token table at a path or URL.
        ids: ids to read; None for all.
        where: condition on the columns of a table, see `codectok.tokens.filters`.
        allow_mixed: accept a table of one codec whose codes were computed differently.

    Raises:
        InputError: the file is damaged or mixed, or the condition is not valid.
    """
    if is_url(str(place)) or Path(place).suffix != ".npz":
        yield from ((row.id, row.codes, row.n_samples) for row in read_rows(place, ids, where, allow_mixed))
        return
    path = Path(place)
    if where is not None:
        raise InputError(f"{path} is not a table and has no columns for --where; give ids.")
    metadata = read_codes_metadata(path)
    with _open_npz(path) as arrays:
        for name in arrays.files:
            if name != NPZ_METADATA and (ids is None or name in ids):
                try:
                    codes = _clip_of(arrays, name, metadata)
                except Exception as error:  # zipfile and numpy raise errors of every kind for damaged bytes
                    raise InputError(f"{path} is damaged at clip {name}: {shortened(error)}.") from None
                yield name, codes, None


def file_names(place: str | Path, ids: set[str] | None = None) -> FileNames:
    """Choose the names of the files of all clips in a file of codes or in a token table.

    Raises:
        InputError: one of `ids`, or of all clips if it is None, is the id of several clips.
    """

    def all_ids() -> Iterator[str]:
        if is_url(str(place)) or Path(place).suffix != ".npz":
            return read_ids(place)
        with _open_npz(Path(place)) as arrays:
            return iter([name for name in arrays.files if name != NPZ_METADATA])

    names = FileNames(all_ids())
    if names.repeated:
        wanted = (one for one in all_ids() if ids is None or one in ids)
        repeated = next((one for one in wanted if hash_of_name(one) in names.repeated), None)
        if repeated is not None:
            raise InputError(f"{place} has several clips with the id {repeated}; give every clip another id.")
    return names


def _write_npz(path: Path, metadata: TableMetadata, rows: Iterable[TokenRow]) -> int:
    count = 0
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        _add_array(archive, NPZ_METADATA, np.array(metadata.model_dump_json()))
        for row in rows:
            _add_array(archive, row.id, row.codes.astype(metadata.code_type))
            count += 1
    return count


def _add_array(archive: zipfile.ZipFile, name: str, array: np.ndarray) -> None:
    """Add a member like `numpy.savez_compressed`, but with a fixed date and without holding the others in memory."""
    member = zipfile.ZipInfo(f"{name}.npy")
    member.compress_type = zipfile.ZIP_DEFLATED
    with archive.open(member, "w") as file:
        np.lib.format.write_array(file, array, allow_pickle=False)


def _write_parquet(path: Path, metadata: TableMetadata, rows: Iterable[TokenRow]) -> int:
    with TokenTableWriter(path, metadata) as writer:
        for row in rows:
            writer.write(row)
    return writer.n_rows


def _clip_of(arrays: np.lib.npyio.NpzFile, name: str, metadata: TableMetadata) -> np.ndarray:
    """Read the codes of a clip; raise a `ValueError` if they are none."""
    _check_size(arrays, name, metadata.n_codebooks)
    codes: np.ndarray = arrays[name]
    if codes.dtype.kind not in "iu" or codes.ndim != 2 or codes.shape[1] != metadata.n_codebooks:
        raise ValueError(f"it is not an array of {metadata.n_codebooks} integers a frame")
    if codes.size and not 0 <= int(codes.min()) <= int(codes.max()) < metadata.codebook_size:
        raise ValueError(f"it has a code beyond {metadata.codebook_size - 1}")
    return codes.astype(np.int64)


def _check_size(arrays: np.lib.npyio.NpzFile, name: str, n_codebooks: int = 1) -> None:
    """Raise a `ValueError` if an array is larger than any clip of `n_codebooks`, or smaller than its header says."""
    assert arrays.zip is not None, "it is open"
    member = arrays.zip.getinfo(f"{name}.npy")
    if member.file_size > n_codebooks * MAX_CODEBOOK_BYTES:
        raise ValueError(f"it has more than {n_codebooks * MAX_CODEBOOK_BYTES:,} bytes")
    with arrays.zip.open(member) as file:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, kind = read(file)
        if math.prod(shape) * kind.itemsize > member.file_size:
            raise ValueError("its header says that it is larger than it is")


def _open_npz(path: Path) -> np.lib.npyio.NpzFile:
    with damage_errors(path, "it cannot be read as .npz, encode the files again"):
        loaded = np.load(path, allow_pickle=False)
    if not isinstance(loaded, np.lib.npyio.NpzFile):
        raise InputError(f"{path} holds one array, not the codes of clips; give a file written by `codectok encode`.")
    return loaded
