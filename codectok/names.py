"""Names of files and folders, as text that can be written anywhere."""

from __future__ import annotations

import os
from pathlib import Path

from .errors import InputError

# Folder of an output in which a job keeps its plan, records and report; never listed as a source.
JOB_FOLDER = "_codectok"


def printable(path: str | Path) -> str:
    """`path` with bytes that are no UTF-8 written as escapes: such names exist, but no table or terminal takes them."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def file_name_of(clip_id: str) -> str:
    """A file name for a clip; ids from tars of other makers may hold anything, path separators included."""
    return "".join(c if c.isalnum() or c in "._-" else "-" for c in clip_id).lstrip(".") or "clip"


def check_new_folder(folder: Path) -> None:
    """Refuse a place for output where something is."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} already holds something; choose another folder.")
