"""Chooses the excerpts of a listening test from a corpus."""

from __future__ import annotations

import bisect
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from codectok.audio.sound import MIXED, SoundOptions
from codectok.errors import AudioError, CodectokError, InputError
from codectok.sources.clip import Clip
from codectok.sources.clips import count_undecodable, readable_clips
from codectok.sources.kinds import AUDIO_KINDS, CONTAINERS
from codectok.sources.listing.arguments import parse_arguments
from codectok.sources.listing.ordering import ordered_sources
from codectok.sources.listing.sources import list_sources
from codectok.sources.parquet.check import check_audio_columns
from codectok.sources.rejects import Reject
from codectok.sources.source import Source, check_max_bytes
from codectok.sources.unused import Unused
from codectok.tokens.clips import ClipReader

from .signals import active_blocks, block_powers, loudest_start

SAMPLE_RATE = 48_000
SHORTEST_SECONDS = 1.0
SEARCHED_SECONDS = 120.0  # from the start of a clip: the excerpt lies in them


@dataclass(frozen=True)
class CorpusOptions:
    """How clips are found and read; see `codectok.pipelines.evaluate.options.EvaluateOptions`."""

    audio_column: str | None = None
    sound: SoundOptions = MIXED
    strict: bool = False
    encoding: str | None = None
    max_file_bytes: int | None = None


@dataclass(frozen=True)
class Excerpt:
    """The part of a clip that listeners hear.

    Attributes:
        clip: the clip, without the bytes of its file.
        path: of its file in the corpus, or of its sample in a tar or Parquet file; None for a part of a file.
        first: index of the excerpt's first sample in the clip.
        clip_seconds: duration of the clip, of which at most `SEARCHED_SECONDS` are read.
        samples: float32 [n] at `SAMPLE_RATE`.
    """

    clip: Clip
    path: str | None
    first: int
    clip_seconds: float
    samples: np.ndarray


@dataclass
class Skipped:
    """Counts clips that cannot be used, and keeps the first message."""

    count: int = 0
    first: str | None = None

    def read(self, dataset: str, seconds: float | None = None) -> None:
        """Not counted here."""

    def reject(self, reject: Reject) -> None:
        """Count a clip that cannot be used."""
        self.skip(reject.message)

    def ignore(self, dataset: str, name: str) -> None:
        """Files without audio are not counted."""

    def leave_unused(self, dataset: str, unused: Unused) -> None:
        """Not counted here."""

    def skip(self, message: str) -> None:
        """Count a clip that cannot be used."""
        self.count += 1
        self.first = self.first or message


def choose_excerpts(
    sources: Sequence[str],
    count: int,
    max_seconds: float,
    seed: int,
    options: CorpusOptions,
) -> tuple[list[Excerpt], Skipped]:
    """Choose `count` clips at random and read the loudest excerpt of each; fewer if the corpus has fewer.

    The choice depends on the seed and on the ids of the clips, not on the location or the order of the corpus. Clips
    that are shorter than a second, silent or damaged are passed over. Memory holds `count` excerpts and one clip.

    Raises:
        InputError: a source does not exist.
        CodectokError: no clip can be used.
    """
    skipped = Skipped()
    chosen: list[tuple[bytes, Excerpt]] = []  # the lowest ranks of usable clips so far, in order
    for clip, path in _clips(sources, options, skipped):
        rank = _rank(seed, clip)
        if len(chosen) == count and rank >= chosen[-1][0]:
            continue
        try:
            excerpt = _excerpt(clip, path, max_seconds, options.sound)
        except AudioError as error:
            count_undecodable(clip, error, skipped)
        else:
            bisect.insort(chosen, (rank, excerpt), key=lambda one: one[0])
            del chosen[count:]
    if not chosen:
        reason = "the sources hold no audio." if skipped.first is None else f"the first: {skipped.first}"
        raise CodectokError(f"No clip can be used for a listening test; {reason}")
    return [excerpt for _, excerpt in chosen], skipped


def read_beginning(blocks: Iterator[np.ndarray]) -> np.ndarray:
    """Read at most `SEARCHED_SECONDS` of blocks at `SAMPLE_RATE`."""
    wanted = round(SEARCHED_SECONDS * SAMPLE_RATE)
    found, length = [np.zeros(0, np.float32)], 0
    for block in blocks:
        found.append(block)
        length += len(block)
        if length >= wanted:
            break
    return np.concatenate(found)[:wanted]


def _clips(sources: Sequence[str], options: CorpusOptions, skipped: Skipped) -> Iterator[tuple[Clip, str | None]]:
    """Yield all clips, with the paths that files of reconstructions may have."""
    if options.sound.channel == "each":
        raise InputError("Stimuli have one channel; give --channel mix or a number.")
    check_max_bytes(options.max_file_bytes)
    listing = list_sources(
        *parse_arguments(sources, AUDIO_KINDS), AUDIO_KINDS, strict=options.strict, encoding=options.encoding
    )
    check_audio_columns(listing, options.audio_column)
    for source in ordered_sources(listing):
        source = replace(
            source,
            audio_column=options.audio_column,
            encoding=options.encoding,
            max_file_bytes=options.max_file_bytes,
        )
        for clip in readable_clips(source, skipped):
            yield clip, _path_of(clip, source)


def _path_of(clip: Clip, source: Source) -> str | None:
    if clip.span.start > 0 or clip.span.end is not None:
        return None
    if source.kind not in CONTAINERS:
        return clip.source
    # A sample that was cut from a recording has the name of that recording.
    return clip.source.removeprefix(f"{source.name}/") if clip.source.startswith(f"{source.name}/") else None


def _rank(seed: int, clip: Clip) -> bytes:
    return hashlib.sha256(f"{seed}\0{clip.id}".encode("utf-8", "surrogatepass")).digest()


def _excerpt(clip: Clip, path: str | None, max_seconds: float, sound: SoundOptions) -> Excerpt:
    reader = ClipReader(clip, SAMPLE_RATE, sound)
    samples = read_beginning(reader.blocks())
    sound.refuse_cancelled(reader.notes, clip.span.start, clip.span.start + len(samples) / SAMPLE_RATE, clip.name)
    if len(samples) < SHORTEST_SECONDS * SAMPLE_RATE:
        raise AudioError(f"{clip.name} is shorter than {SHORTEST_SECONDS:g} s.", "too_short")
    length = round(max_seconds * SAMPLE_RATE)
    first = loudest_start(samples, length, SAMPLE_RATE)
    excerpt = samples[first : first + length]
    if not active_blocks(block_powers(excerpt, SAMPLE_RATE)).any():
        raise AudioError(f"{clip.name} is silent.", "silent")
    return Excerpt(replace(clip, audio=b""), path, first, len(samples) / SAMPLE_RATE, excerpt.copy())
