"""Framing of NIST SPHERE files."""

from __future__ import annotations

import os
from typing import BinaryIO

from .layout import Damage, Layout, Stream
from .magic import MAX_CHANNELS
from .samples import SampleData, layout_of_samples

MAGIC = b"NIST_1A\n"
MAX_HEADER = 1 << 16
CODINGS = ("pcm", "ulaw", "mu-law", "alaw")


def layout_of_sphere(file: BinaryIO) -> Layout | None:
    """Layout of a SPHERE file, open at its start; None for other files."""
    if file.read(len(MAGIC)) != MAGIC:
        return None
    length = file.readline(16).strip()
    start = int(length) if length.isdigit() else 0
    if not 0 < start <= min(MAX_HEADER, file.seek(0, os.SEEK_END)):
        return None  # the decoder knows the reason
    file.seek(0)
    fields = _fields(file.read(start))
    coding = fields.get("sample_coding", "pcm")
    if coding not in CODINGS:
        message = f"is compressed ({coding}), which is not supported; convert it with sph2pipe or sox first"
        return Layout("NIST", (), Damage(message, None, "unreadable"))
    channels, width = _number(fields, "channel_count", 1), _number(fields, "sample_n_bytes", 1)
    if not 0 < channels <= MAX_CHANNELS:
        return Layout("NIST", (), Damage(f"has an impossible number of {channels} channels", None, "unreadable"))
    block = max(1, channels * width)

    def stream(n_bytes: int) -> Stream:
        return Stream(0, start + n_bytes)  # libsndfile reads to the end

    samples = SampleData(
        container="NIST",
        start=start,
        stated=_number(fields, "sample_count", 0) * block or None,
        block=block,
        bytes_per_second=block * _number(fields, "sample_rate", 0),
        stream=stream,
        stops=False,
    )
    return layout_of_samples(file, samples)


def _fields(header: bytes) -> dict[str, str]:
    """Return the fields of a header, each with its name, type and value in a line."""
    fields: dict[str, str] = {}
    for line in header.decode("latin-1").split("\n"):
        name, _, value = line.strip().partition(" ")
        if name == "end_head":
            break
        fields[name] = value.partition(" ")[2].strip()
    return fields


def _number(fields: dict[str, str], name: str, default: int) -> int:
    value = fields.get(name, "")
    return int(value) if value.isascii() and value.isdigit() and len(value) < 20 else default
