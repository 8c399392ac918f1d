"""Names of files and folders, as text that can be written anywhere."""

from __future__ import annotations

import hashlib
import os
import tempfile
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from .errors import InputError

LOG_FOLDER_VARIABLE = "CODECTOK_LOG_DIR"
JOB_FOLDER = "_codectok"  # records of a job, in its output folder
# Bytes of the readable part of a name with a hash.
READABLE_BYTES = 60
# File systems allow 255 bytes, of which temporary names need 14 more than the name (see `codectok.atomic`).
LONGEST_NAME = 255 - 14
# Before the hash in names; ids that are names do not have it.
HASH_MARK = "~"
# Names of devices on Windows, also before a suffix.
RESERVED_NAMES = {"CON", "PRN", "AUX", "NUL", *(f"{port}{n}" for port in ("COM", "LPT") for n in range(10))}


def printable(path: str | Path) -> str:
    """Return `path` with bytes that are not UTF-8 as escapes, for tables and terminals."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


@contextmanager
def utf8_path(path: Path) -> Iterator[Path]:
    """Yield a path of valid UTF-8 for the file or folder `path`, for libraries that take no other names."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        with tempfile.TemporaryDirectory(prefix="codectok-") as folder:
            link = Path(folder) / f"link{path.suffix if path.suffix.isascii() else ''}"
            link.symlink_to(path.absolute())
            yield link
    else:
        yield path


def writable(text: str) -> str:
    """Return `text` with halves of characters (surrogates) as escapes, so that it can be encoded."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def shortened(text: str, length: int) -> str:
    """Return `text`, or its first `length` characters with a hash of all of it if it is longer."""
    if len(text) <= length:
        return text
    return f"{text[:length]}...{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:12]}"


class FileNames:
    """Names of the files of a table's clips, one for each id, on every file system.

    A name is the id itself where a file may have it. Else it is a readable part of the id and a hash of the id: for
    characters that file names lack, names that are too long or reserved, and ids that differ from another one only in
    letter case or in the Unicode form, of which only the one in lower case keeps its name. Names do not depend on the
    order of the table.

    Args:
        ids: all ids of the table; 16 bytes of memory each.

    Attributes:
        repeated: hashes of the ids that several rows have, by `hash_of_name`.
    """

    def __init__(self, ids: Iterable[str]) -> None:
        hashes = np.fromiter(((hash_of_name(one), hash_of_name(_folded(one))) for one in ids), np.dtype((np.uint64, 2)))
        exact, folded = hashes.reshape(-1, 2).T
        self.repeated = _values_of_several(exact)
        self._ambiguous = _values_of_several(folded)

    def of(self, clip_id: str, suffix: str) -> str:
        """Return the name of the file of `clip_id`, with `suffix` such as ".wav"."""
        folded = _folded(clip_id)
        hidden_by_another = folded != clip_id and hash_of_name(folded) in self._ambiguous
        if _is_file_name(clip_id, suffix) and not hidden_by_another:
            return clip_id + suffix
        return f"{readable_name(clip_id)}{HASH_MARK}{hash_of_name(clip_id):016x}{suffix}"


def hash_of_name(name: str) -> int:
    """Hash any text to 64 bits."""
    digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big")


def readable_name(clip_id: str) -> str:
    """Return the beginning of an id with characters that any file name may have; other ids may share it."""
    return _safe(clip_id).encode()[:READABLE_BYTES].decode(errors="ignore")


def _safe(clip_id: str) -> str:
    return "".join(c if c.isalnum() or c in "._-" else "-" for c in clip_id).lstrip(".") or "clip"


def _is_file_name(clip_id: str, suffix: str) -> bool:
    """Return True if every file system has files of the name `clip_id` and `suffix`."""
    length = len((clip_id + suffix).encode("utf-8", "replace"))
    device = clip_id.partition(".")[0].upper() in RESERVED_NAMES
    return clip_id == _safe(clip_id) and length <= LONGEST_NAME and not device


def _folded(clip_id: str) -> str:
    """Return the id as file systems compare it that ignore letter case and the Unicode form."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", clip_id).casefold())


def _values_of_several(hashes: np.ndarray) -> frozenset[int]:
    ordered = np.sort(hashes)
    return frozenset(ordered[1:][ordered[1:] == ordered[:-1]].tolist())


def check_new_folder(folder: Path) -> None:
    """Raise `InputError` if `folder` exists and is not an empty folder."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} already exists and is not empty; choose another folder.")
