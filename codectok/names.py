"""Names of files and folders, as text that can be written anywhere."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from .errors import InputError

JOB_FOLDER = "_codectok"  # records of a job, in its output folder


def printable(path: str | Path) -> str:
    """Return `path` with bytes that are not UTF-8 as escapes, for tables and terminals."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def writable(text: str) -> str:
    """Return `text` with halves of characters (surrogates) as escapes, so that it can be encoded."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def shortened(text: str, length: int) -> str:
    """Return `text`, or its first `length` characters with a hash of all of it if it is longer."""
    if len(text) <= length:
        return text
    return f"{text[:length]}...{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:12]}"


def file_name_of(clip_id: str) -> str:
    """Return a safe file name for a clip; ids from foreign tars may contain any character, also path separators."""
    return "".join(c if c.isalnum() or c in "._-" else "-" for c in clip_id).lstrip(".") or "clip"


def check_new_folder(folder: Path) -> None:
    """Raise `InputError` if `folder` exists and is not an empty folder."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} already exists and is not empty; choose another folder.")
