"""Files and folders that are written completely or not at all.

A temporary file or folder is locked (`flock`) while its writer lives. Without a lock it is a leftover of a process that
was killed, and the next command that writes the same file or folder removes it.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import stat
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from .names import check_new_folder, utf8_path

TEMPORARY_SUFFIX = ".tmp"
_TEMPORARY_NAME = re.compile(rf"\.(.+)\.[0-9a-f]{{8}}{re.escape(TEMPORARY_SUFFIX)}", re.DOTALL)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; the file written there replaces `path`, synced to disk, on success only.

    The file gets the mode of a new file, whatever the writer chooses: safetensors writes files that only their owner
    can read.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary_beside(path)
    try:
        with _place_named(path), _held(temporary, os.O_CREAT | os.O_EXCL):
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

    Unless `overwrite` is set, `path` must be new or empty. Leftovers of killed processes are removed first.
    """
    if not overwrite:
        check_new_folder(path)
    remove_leftovers(path)
    temporary = _temporary_beside(path.absolute())
    temporary.mkdir(parents=True)
    try:
        with _place_named(path), _held(temporary):
            with utf8_path(temporary) as folder:
                yield folder
            for file in temporary.rglob("*"):
                if file.is_file():
                    with file.open("rb") as written:
                        os.fsync(written.fileno())
            if overwrite:
                remove_folder(path)
            temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def temporary_folder(name: str) -> Iterator[Path]:
    """Yield a new folder among the temporary files of this user; those that killed processes left are removed."""
    place = Path(tempfile.gettempdir()) / f"{name}-{os.getuid()}"
    folder = _temporary_beside(place)
    with ExitStack() as stack:
        # Other processes look for leftovers only when this folder does not exist yet, or is held.
        with place.with_name(f".{place.name}.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            remove_leftovers(place)
            folder.mkdir(mode=0o700)
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            stack.enter_context(_held(folder))
        yield folder


def remove_folder(path: Path) -> None:
    """Remove a folder if it exists; a killed process leaves it whole, or as a leftover."""
    condemned = _temporary_beside(path.absolute())
    with suppress(FileNotFoundError):
        path.rename(condemned)
        shutil.rmtree(condemned, ignore_errors=True)


def is_temporary(path: Path) -> bool:
    """Return True for the name of a temporary file or folder of this module."""
    return _final_name(path) is not None


def leftovers(path: Path) -> list[Path]:
    """Return the temporary files and folders that killed processes left when they wrote `path`."""
    name = path.absolute().name
    return [found for found in leftovers_in(path.absolute().parent) if _final_name(found) == name]


def leftovers_in(folder: Path) -> list[Path]:
    """Return the temporary files and folders directly in `folder` that no living process holds."""
    if not folder.is_dir():
        return []
    return [path for path in sorted(folder.iterdir()) if is_temporary(path) and not is_held(path)]


def remove_leftovers(path: Path) -> None:
    """Remove the temporary files and folders that killed processes left when they wrote `path`."""
    for leftover in leftovers(path):
        _remove(leftover)


def remove_leftovers_in(folder: Path) -> None:
    """Remove all temporary files and folders that killed processes left directly in `folder`."""
    for leftover in leftovers_in(folder):
        _remove(leftover)


def _temporary_beside(path: Path) -> Path:
    # A unique name, since several processes may write the same file.
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}{TEMPORARY_SUFFIX}")


def _final_name(temporary: Path) -> str | None:
    """The name that a temporary file or folder gets at its end; None for other files."""
    found = _TEMPORARY_NAME.fullmatch(temporary.name)
    return None if found is None else found[1]


@contextmanager
def _held(path: Path, flags: int = 0) -> Iterator[None]:
    """Open and lock a temporary file or folder, so that no other process takes it for a leftover."""
    descriptor = os.open(path, os.O_RDONLY | flags, 0o666)
    try:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def is_held(path: Path) -> bool:
    """Return True if a living process holds a temporary file or folder, or if it is gone."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:  # it is gone, or belongs to another user
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # a file system without locks
        return False
    finally:
        os.close(descriptor)
    return False


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def _place_named(path: Path) -> Iterator[None]:
    """Add `path` to errors of the system that name no file, such as a full disk."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise
