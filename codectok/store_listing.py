"""Lists object stores page by page, so that no dict of every file of a store lies in memory."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from fsspec.utils import glob_translate

S3_PROTOCOLS = {"s3", "s3a"}
MAGIC = "*?["

Entry = tuple[str, Mapping[str, Any]]
"""Path of a file in a store, and the facts that the store tells of it."""


def list_store(files: Any, folder: str) -> Iterator[Entry]:
    """Yield all files in and below `folder`, a path in the file system `files` of fsspec; none if it does not exist.

    S3 is asked for one page after the other; other stores are listed as a whole by their clients.
    """
    files.invalidate_cache()
    if not is_s3(files):
        try:
            found = files.find(folder, detail=True)
        except FileNotFoundError:
            return
        files.invalidate_cache()  # it would hold the listing
        yield from _only_files(found)
        return
    bucket, key, _ = files.split_path(folder)
    key = key.rstrip("/")
    empty = True
    with suppress(FileNotFoundError):  # there is no such bucket, or no such file
        for page in _pages(files, bucket, f"{key}/" if key else ""):
            empty = empty and not page.get("Contents")
            yield from _entries(page, bucket)
        if empty and key:
            yield from _only_files({folder: files.info(folder)})


def glob_store(files: Any, folder: str, pattern: str) -> Iterator[Entry]:
    """Yield the files below `folder` whose paths match `pattern`, as `glob` of fsspec finds them."""
    if not is_s3(files):
        found = files.glob(f"{folder}/{pattern}", detail=True)
        files.invalidate_cache()
        yield from _only_files(found)
        return
    bucket, key, _ = files.split_path(folder)
    yield from _match(files, bucket, f"{key.rstrip('/')}/" if key else "", pattern.split("/"))


def is_s3(files: Any) -> bool:
    """Return True for the file system of S3 or of a store that answers like it."""
    protocol = files.protocol
    return bool(S3_PROTOCOLS.intersection((protocol,) if isinstance(protocol, str) else protocol))


def _match(files: Any, bucket: str, prefix: str, parts: list[str]) -> Iterator[Entry]:
    """Yield the files that match `parts`, the names of a pattern below `prefix`; only folders that match are listed."""
    while len(parts) > 1 and not any(character in parts[0] for character in MAGIC):
        prefix, parts = f"{prefix}{parts[0]}/", parts[1:]
    stem = prefix + re.split(r"[*?\[]", parts[0], maxsplit=1)[0]
    if "**" in parts[0]:
        is_match = _matcher("/".join(parts))
        for page in _pages(files, bucket, stem):
            yield from _entries(page, bucket, lambda key: is_match(key.removeprefix(prefix)))
        return
    is_match = _matcher(parts[0])
    for page in _pages(files, bucket, stem, Delimiter="/"):
        if len(parts) == 1:
            yield from _entries(page, bucket, lambda key: is_match(key.removeprefix(prefix)))
            continue
        for folder in page.get("CommonPrefixes", []):
            if is_match(folder["Prefix"].removeprefix(prefix).rstrip("/")):
                yield from _match(files, bucket, folder["Prefix"], parts[1:])


def _matcher(pattern: str) -> Any:
    return re.compile(glob_translate(pattern)).match


def _pages(files: Any, bucket: str, prefix: str, **options: Any) -> Iterator[Mapping[str, Any]]:
    place: dict[str, str] = {}
    while True:
        page = files.call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, **options, **files.req_kw, **place)
        yield page
        if not page.get("IsTruncated"):
            return
        place = {"ContinuationToken": page["NextContinuationToken"]}


def _entries(page: Mapping[str, Any], bucket: str, wanted: Any = None) -> Iterator[Entry]:
    for entry in page.get("Contents", []):
        # A key with "/" at its end stands for an empty folder.
        if not entry["Key"].endswith("/") and (wanted is None or wanted(entry["Key"])):
            yield f"{bucket}/{entry['Key']}", {**entry, "size": entry["Size"]}


def _only_files(found: Mapping[str, Mapping[str, Any]]) -> Iterator[Entry]:
    return ((name, info) for name, info in sorted(found.items()) if info["type"] == "file")
