"""Paths in JSON: text, or the bytes of a path that is not UTF-8."""

from __future__ import annotations

import os
from typing import Annotated

from pydantic import PlainSerializer, PlainValidator

# Stands before the bytes of a path, each as one character; no path holds it.
BYTES_MARK = "\0"


def _pack(path: str) -> str:
    try:
        path.encode()
    except UnicodeEncodeError:
        return BYTES_MARK + os.fsencode(path).decode("latin-1")
    return path


def _unpack(text: object) -> str:
    if not isinstance(text, str):
        raise ValueError("a path must be text")
    return os.fsdecode(text[1:].encode("latin-1")) if text.startswith(BYTES_MARK) else text


PathText = Annotated[str, PlainValidator(_unpack), PlainSerializer(_pack, return_type=str, when_used="json")]
"""A path in a model of pydantic, which refuses text that stands for bytes."""
