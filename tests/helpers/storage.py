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


def store_environment() -> dict[str, str]:
    """Variables by which other processes reach the store of the fixture `s3`, as users set them."""
    options = fsspec.config.conf["s3"]
    return {
        "AWS_ENDPOINT_URL": options["endpoint_url"],
        "AWS_ACCESS_KEY_ID": options["key"],
        "AWS_SECRET_ACCESS_KEY": options["secret"],
        "AWS_DEFAULT_REGION": "us-east-1",
    }
