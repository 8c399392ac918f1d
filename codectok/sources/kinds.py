"""Kinds of files by their names, and estimates of their durations, without opening them."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Literal

from codectok.audio.files import FILM_SUFFIXES, is_audio_path, is_film_path

Kind = Literal["audio", "tar", "parquet", "lines", "unknown"]
"""Kind of a file by its name; "unknown" files, films among them, are opened to see if they have sound."""

CONTAINERS: frozenset[Kind] = frozenset(["tar", "parquet", "lines"])
AUDIO_KINDS: tuple[Kind, ...] = ("audio", "tar", "parquet", "unknown")  # that may hold audio
LINES_SUFFIX = ".jsonl"

# Bytes per second of audio in common qualities; units are cut before any file is opened.
BYTES_PER_SECOND = {
    ".wav": 88_200,
    ".aiff": 88_200,
    ".aif": 88_200,
    ".flac": 45_000,
    ".mp3": 16_000,
    ".opus": 6_000,
    ".tar": 30_000,
    ".parquet": 20_000,
}
OTHER_BYTES_PER_SECOND = 10_000
FILM_BYTES_PER_SECOND = 200_000
MAYBE_FILMS = frozenset([".mp4", ".mkv", ".mov", ".webm", ".3gp"])

# Other files in folders of audio: ignored unless their first bytes show audio.
_OTHER_NAMES = """
    txt md rst html htm pdf doc docx rtf tex json csv tsv xml yaml yml toml ini cfg log srt vtt lab textgrid trn
    ctm rttm phn wrd lrc mid midi cue m3u m3u8 pls nfo sfv jpg jpeg png gif bmp svg webp tif tiff ico py pyc sh c h cpp
    js ipynb lua pl rb java npy npz pt pth bin ckpt safetensors pkl h5 hdf5 arrow feather db sqlite lock md5
    sha1 sha256 torrent ttf otf woff woff2 ttc fon mo po pot svgz xcf psd eps map mask css conf desktop xls xlsx
    ppt pptx ods odt exe dll so jar class
"""
ARCHIVE_SUFFIXES = frozenset([".zip", ".gz", ".bz2", ".xz", ".7z", ".rar", ".zst", ".lz4"])
OTHER_SUFFIXES = ARCHIVE_SUFFIXES | {f".{name}" for name in _OTHER_NAMES.split()}
TAR_ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")


def kind_of(name: str) -> Kind | None:
    """Kind of a file by its name; None if it is known not to be audio."""
    if is_audio_path(name):
        return "unknown" if is_film_path(name) else "audio"
    container = container_kind(name)
    if container is not None:
        return container
    suffix = PurePosixPath(name).suffix.lower()
    if suffix == LINES_SUFFIX:
        return "lines"
    return None if suffix in OTHER_SUFFIXES else "unknown"


def suffix_of(name: str) -> str:
    """Suffix of a file in lower case, for counts, with advice for archives; "(none)" without one."""
    suffix = PurePosixPath(name).suffix.lower()
    inner = PurePosixPath(PurePosixPath(name).stem).suffix.lower()
    if suffix in ARCHIVE_SUFFIXES and (inner in OTHER_SUFFIXES or inner == LINES_SUFFIX):
        return inner + suffix  # one text that is compressed
    return f"{suffix} (archives: unpack them first)" if suffix in ARCHIVE_SUFFIXES else suffix or "(none)"


def container_kind(name: str) -> Kind | None:
    """Kind of a container by its name; None for other files."""
    lowered = name.lower()
    if lowered.endswith(".parquet"):
        return "parquet"
    return "tar" if lowered.endswith(TAR_ENDINGS) else None


def estimated_seconds(path: str, size: int | None, start: float | None = None, end: float | None = None) -> float:
    """Estimate the duration of a source in seconds from its size, or its span, without opening it."""
    if end is not None:
        return max(0.0, end - (start or 0.0))
    suffix = PurePosixPath(path).suffix.lower()
    # Films of these kinds may as well be audio alone.
    other = FILM_BYTES_PER_SECOND if suffix in FILM_SUFFIXES - MAYBE_FILMS else OTHER_BYTES_PER_SECOND
    return (size or 0) / BYTES_PER_SECOND.get(suffix, other)
