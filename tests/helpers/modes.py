"""Modes of files and folders that a command has written."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def umask(mask: int) -> Iterator[None]:
    """This process and those that it starts have `mask`."""
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def wrong_modes(folder: Path, mask: int) -> dict[str, str]:
    """Modes of all files and folders in `folder` that are not those of new ones under `mask`."""
    found = {path: path.lstat().st_mode & 0o7777 for path in sorted(folder.rglob("*"))}
    assert found
    return {
        path.relative_to(folder).as_posix(): f"{mode:o}"
        for path, mode in found.items()
        if mode != (0o777 if path.is_dir() else 0o666) & ~mask
    }
