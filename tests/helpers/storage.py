"""Files of the tests, and copies of them in object stores."""

from __future__ import annotations

from pathlib import Path

import fsspec

DATA = Path(__file__).parents[1] / "data"


def upload(folder: Path, url: str) -> str:
    """Copy all files of `folder` below `url`, and return `url`."""
    files, path = fsspec.core.url_to_fs(url)
    for file in sorted(file for file in folder.rglob("*") if file.is_file()):
        files.pipe_file(f"{path}/{file.relative_to(folder).as_posix()}", file.read_bytes())
    return url
