"""Files of codes, as `codectok encode` writes them: `.npz` (an array per clip) or `.parquet` (a token table)."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from codectok.atomic import replacing
from codectok.errors import InputError
from codectok.storage import is_url

from .table import TableMetadata, TokenRow, TokenTableWriter, read_metadata, read_rows

NPZ_METADATA = "codectok"
CODES_SUFFIXES = (".npz", ".parquet")


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


def read_codes_metadata(place: str | Path) -> TableMetadata:
    """Read the metadata of a file of codes, or of a token table at a path or URL.

    Raises:
        InputError: `place` is missing or holds no codes of this version.
    """
    if is_url(str(place)):
        return read_metadata(place)
    path = Path(place)
    if not path.exists():
        raise InputError(f"There is no file or folder {path}.")
    if path.suffix != ".npz":
        return read_metadata(path)
    with _open_npz(path) as arrays:
        if NPZ_METADATA not in arrays:
            raise InputError(f"{path} was not written by codectok: it has no entry {NPZ_METADATA!r}.")
        try:
            return TableMetadata.model_validate_json(str(arrays[NPZ_METADATA]))
        except ValidationError:
            raise InputError(f"{path} was written by a version of codectok that this one does not read.") from None


def read_codes(
    place: str | Path, ids: set[str] | None = None, where: str | None = None
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield pairs of id and codes int64 [n_frames, n_codebooks].

    Args:
        place: a file of codes, or a token table at a path or URL.
        ids: ids to read; None for all.
        where: condition on the columns of a table, see `codectok.tokens.filters`.

    Raises:
        InputError: the file is damaged, or the condition is not valid.
    """
    if is_url(str(place)) or Path(place).suffix != ".npz":
        yield from ((row.id, row.codes) for row in read_rows(place, ids, where))
        return
    path = Path(place)
    if where is not None:
        raise InputError(f"{path} is not a table and has no columns for --where; give ids.")
    with _open_npz(path) as arrays:
        for name in arrays.files:
            if name != NPZ_METADATA and (ids is None or name in ids):
                try:
                    codes = arrays[name].astype(np.int64)
                except (OSError, ValueError, EOFError, zlib.error, zipfile.BadZipFile) as error:
                    raise InputError(f"{path} is damaged at clip {name}: {error}.") from None
                yield name, codes


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


def _open_npz(path: Path) -> np.lib.npyio.NpzFile:
    try:
        loaded = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} cannot be read as .npz: {error}.") from None
    if not isinstance(loaded, np.lib.npyio.NpzFile):
        raise InputError(f"{path} holds one array, not the codes of clips; give a file written by `codectok encode`.")
    return loaded
