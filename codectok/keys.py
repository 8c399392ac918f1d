"""Keys of samples: unique names that all readers of WebDataset tars split in the same way."""

from __future__ import annotations

import hashlib
import re

SLUG_LENGTH = 48
VALID_KEY = re.compile(r"[A-Za-z0-9_-]+")


def make_key(dataset: str, path: str, start: int | None = None) -> str:
    """Make a key of `[A-Za-z0-9_-]+` from a dataset's name, a path relative to its root and a start in samples.

    The readable half is shortened; a hash of the exact names makes the key unique.
    """
    stem = re.sub(r"\.[^./]*$", "", path)
    readable = re.sub(r"[^A-Za-z0-9]+", "-", f"{dataset}-{stem}").strip("-")[-SLUG_LENGTH:].strip("-")
    digest = hashlib.sha256(f"{dataset}\0{path}".encode(errors="surrogateescape")).hexdigest()[:12]
    key = f"{readable}_{digest}" if readable else digest
    return key if start is None else f"{key}_{start:010d}"
