"""Framing of AU files, also called SND."""

from __future__ import annotations

import os
import struct
from typing import BinaryIO

from .layout import Damage, Layout, Stream
from .magic import AU_ENCODINGS, MAX_CHANNELS
from .samples import SampleData, is_unknown, layout_of_samples

HEADER_BYTES = 24
MAX_SIZE = 0xFFFF_FFFF  # means that the size is unknown
# Bytes that libsndfile decodes together: 120 samples.
CODEC_BLOCKS = {23: 60, 25: 45, 26: 75}


def layout_of_au(file: BinaryIO) -> Layout | None:
    """Layout of an AU file, open at its start; None for other files."""
    header = file.read(HEADER_BYTES)
    if header[:4] not in (b".snd", b"dns.") or len(header) < HEADER_BYTES:
        return None
    order = ">" if header[:4] == b".snd" else "<"
    start, size, encoding, sample_rate, channels = struct.unpack_from(order + "5I", header, 4)
    fault = None
    if encoding not in AU_ENCODINGS:
        fault = f"has the encoding {encoding} of AU files, which is not supported"
    elif not 0 < channels <= MAX_CHANNELS:
        fault = f"has an impossible number of {channels} channels"
    elif sample_rate == 0:
        fault = "has an impossible sample rate of 0 Hz"
    elif not HEADER_BYTES <= start <= file.seek(0, os.SEEK_END):
        fault = f"has a damaged header: its samples cannot begin at byte {start}"
    if fault is not None:
        return Layout("AU", (), Damage(fault, None, "unreadable"))
    bits = AU_ENCODINGS[encoding]

    def stream(n_bytes: int) -> Stream:
        return Stream(0, start + n_bytes, ((8, struct.pack(order + "I", min(n_bytes, MAX_SIZE))),))

    samples = SampleData(
        container="AU",
        start=start,
        stated=None if size == 0 or is_unknown(size) else size,
        block=CODEC_BLOCKS.get(encoding, max(1, bits * channels // 8)),
        bytes_per_second=bits * channels * sample_rate / 8,
        stream=stream,
        codec_block=CODEC_BLOCKS.get(encoding, 0),
        stops=encoding not in CODEC_BLOCKS,
    )
    return layout_of_samples(file, samples)
