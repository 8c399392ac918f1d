"""Files and folders that are written completely or not at all."""

from __future__ import annotations

import os
import shutil
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .names import check_new_folder, utf8_path

TEMPORARY_SUFFIX = ".tmp"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; the file written there replaces `path`, synced to disk, on success only.

    The file gets the mode of a new file, whatever the writer chooses: safetensors writes files that only their owner
    can read.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # A unique name, since several processes may write the same file.
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}{TEMPORARY_SUFFIX}")
    try:
        with _place_named(path):
            temporary.touch()
            mode = temporary.stat().st_mode
            with utf8_path(temporary) as written:
                yield written
            with temporary.open("rb") as file:
                if os.fstat(file.fileno()).st_mode != mode:
                    os.fchmod(file.fileno(), stat.S_IMODE(mode))
                os.fsync(file.fileno())
            temporary.rename(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a small text file, completely or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def replacing_folder(path: Path, overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary folder that replaces `path` on success only.

    Unless `overwrite` is set, `path` must be new or empty.
    """
    if not overwrite:
        check_new_folder(path)
    temporary = path.absolute().with_name(f".{path.absolute().name}.{uuid.uuid4().hex[:8]}{TEMPORARY_SUFFIX}")
    temporary.mkdir(parents=True)
    try:
        with _place_named(path):
            with utf8_path(temporary) as folder:
                yield folder
            for file in temporary.rglob("*"):
                if file.is_file():
                    with file.open("rb") as written:
                        os.fsync(written.fileno())
            if overwrite:
                shutil.rmtree(path, ignore_errors=True)
            temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove_leftovers(path: Path) -> None:
    """Remove temporary folders that killed processes left beside `path`; no other process may be writing it."""
    for leftover in path.absolute().parent.glob(f".{path.name}.*{TEMPORARY_SUFFIX}"):
        shutil.rmtree(leftover, ignore_errors=True)


@contextmanager
def _place_named(path: Path) -> Iterator[None]:
    """Add `path` to errors of the system that name no file, such as a full disk."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise
