"""Names of files and folders, as text that can be written anywhere."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import InputError

JOB_FOLDER = "_codectok"  # records of a job, in its output folder


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


def file_name_of(clip_id: str) -> str:
    """Return a safe file name for a clip; ids from foreign tars may contain any character, also path separators."""
    return "".join(c if c.isalnum() or c in "._-" else "-" for c in clip_id).lstrip(".") or "clip"


def check_new_folder(folder: Path) -> None:
    """Raise `InputError` if `folder` exists and is not an empty folder."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} already exists and is not empty; choose another folder.")
