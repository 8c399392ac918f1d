"""Uploads in parts that killed processes left in an object store; their parts take space that no listing shows."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from codectok.storage import Storage, is_url, open_file_system
from codectok.store_listing import S3_PROTOCOLS

log = logging.getLogger(__name__)


@dataclass(frozen=True, order=True)
class UnfinishedUpload:
    """An upload of the file `name` of an output that was not completed, and the identity that the store gave it."""

    name: str
    identity: str


def unfinished_uploads(storage: Storage, below: str = "") -> list[UnfinishedUpload]:
    """Return the uploads of files below `below` in an output that were not completed; only S3 tells of them."""
    if not is_url(storage.url) or storage.url.partition("://")[0] not in S3_PROTOCOLS:
        return []
    files, bucket, prefix = _place_of(storage)
    found: list[UnfinishedUpload] = []
    place: dict[str, str] = {}
    while True:
        answer = files.call_s3("list_multipart_uploads", Bucket=bucket, Prefix=prefix + below, **place)
        found += [
            UnfinishedUpload(upload["Key"].removeprefix(prefix), upload["UploadId"])
            for upload in answer.get("Uploads", [])
        ]
        if not answer.get("IsTruncated"):
            return sorted(found)
        place = {"KeyMarker": answer["NextKeyMarker"], "UploadIdMarker": answer["NextUploadIdMarker"]}


def abort_upload(storage: Storage, upload: UnfinishedUpload) -> None:
    """Delete the parts of an upload."""
    files, bucket, prefix = _place_of(storage)
    files.call_s3("abort_multipart_upload", Bucket=bucket, Key=prefix + upload.name, UploadId=upload.identity)


def _place_of(storage: Storage) -> tuple[Any, str, str]:
    """Return the file system of an output, its bucket, and the start of its keys there."""
    files, root = open_file_system(storage.url)
    bucket, _, folder = root.rstrip("/").partition("/")
    return files, bucket, f"{folder}/" if folder else ""


def remove_uploads(storage: Storage, wanted: Callable[[str], bool], below: str = "") -> None:
    """Abort the unfinished uploads of the files whose names are `wanted`; their writers must be dead.

    A job needs no right to list or abort uploads: without it, they stay, and a warning says so.
    """
    for upload in listed_uploads(storage, below):
        if wanted(upload.name):
            try:
                abort_upload(storage, upload)
            except FileNotFoundError:
                continue  # it has ended meanwhile
            except (OSError, NotImplementedError) as error:
                log.warning("%s does not let unfinished uploads be removed: %s", storage.url, error)
                return


def listed_uploads(storage: Storage, below: str = "") -> list[UnfinishedUpload]:
    """Return the unfinished uploads; none, with a warning, if the store does not list them."""
    try:
        return unfinished_uploads(storage, below)
    except FileNotFoundError:
        return []  # there is no such bucket
    except (OSError, NotImplementedError) as error:
        log.warning(
            "%s does not list its unfinished uploads, which take space if there are any: %s", storage.url, error
        )
        return []
