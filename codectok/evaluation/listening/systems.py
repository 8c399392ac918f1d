"""Systems of a listening test: codecs that reconstruct the excerpts, and folders that hold reconstructions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from codectok.audio.files import AUDIO_SUFFIXES, stream_audio
from codectok.audio.resample import resample
from codectok.audio.sound import SoundOptions
from codectok.choices import Precision
from codectok.errors import CodectokError, InputError
from codectok.loading import load_codec
from codectok.names import printable

from .selection import SAMPLE_RATE, Excerpt, read_beginning
from .signals import fitted
from .stored_test import ANCHOR, REFERENCE

LARGEST_DIFFERENCE = 0.5  # seconds, between a reconstruction in a folder and its reference
RESERVED = (REFERENCE, ANCHOR)


@dataclass(frozen=True)
class NamedSystem:
    """A codec or a folder of the command line, with its name in results."""

    name: str
    source: str


def parse_codec(text: str) -> NamedSystem:
    """Parse `CODEC` or `NAME=CODEC`; the name is that of the codec by default."""
    name, separator, rest = text.partition("=")
    if separator and name and rest and "/" not in name and ":" not in name and not Path(text).exists():
        return NamedSystem(name, rest)
    return NamedSystem(text.rstrip("/") or text, text)


def parse_folder(text: str) -> NamedSystem:
    """Parse `NAME=DIR`.

    Raises:
        InputError: the form is another one, or there is no such folder.
    """
    name, separator, rest = text.partition("=")
    if not separator or not name or not rest:
        raise InputError(f"--folder takes NAME=DIR, such as opus=reconstructions/opus, not {text}.")
    if not Path(rest).is_dir():
        raise InputError(f"The folder {rest} of the system {name} does not exist.")
    return NamedSystem(name, rest)


def check_names(systems: Sequence[NamedSystem]) -> None:
    """Raise an `InputError` if there are no systems, two share a name, or one has a reserved name."""
    if not systems:
        raise InputError("A listening test needs at least one --codec or --folder to compare with the reference.")
    seen: set[str] = set()
    for system in systems:
        if system.name in RESERVED:
            raise InputError(f"A system cannot be named {system.name}, which every test has; choose another name.")
        if system.name in seen:
            raise InputError(f"Two systems are named {system.name}; name one of them, as in other={system.source}.")
        seen.add(system.name)


def reconstructions(
    system: NamedSystem, excerpts: Sequence[Excerpt], device: str, dtype: Precision
) -> tuple[str, Callable[[], Iterator[np.ndarray]]]:
    """Load a codec; return its fingerprint and a function that yields its reconstruction of each excerpt."""
    codec = load_codec(system.source, device, dtype)
    codec.check_decoder()

    def compute() -> Iterator[np.ndarray]:
        for excerpt in excerpts:
            decoded = codec.reconstruct(excerpt.samples, SAMPLE_RATE).numpy()
            if not np.isfinite(decoded).all():
                raise CodectokError(f"The codec {system.name} decodes {excerpt.clip.name} to NaN or infinite samples.")
            yield fitted(resample(decoded, codec.decoded_sample_rate, SAMPLE_RATE), len(excerpt.samples))

    return codec.fingerprint, compute


class ReconstructionFolder:
    """A folder of reconstructions, with one file for each excerpt.

    The file of a clip has the path of its reference without suffix: relative to the corpus, or to the tar or Parquet
    file; it may begin with the name of the data set. Every clip may have a file that is named by its id.

    Raises:
        InputError: files for some excerpts are missing.
    """

    def __init__(self, system: NamedSystem, excerpts: Sequence[Excerpt], sound: SoundOptions) -> None:
        self._system, self._sound, self._excerpts = system, sound, excerpts
        root = Path(system.source)
        files: dict[str, list[Path]] = {}
        for path in sorted(root.rglob("*")):
            if path.suffix.lower() in AUDIO_SUFFIXES and path.is_file():
                files.setdefault(path.relative_to(root).with_suffix("").as_posix(), []).append(path)
        found = [next((files[name] for name in _names(one) if name in files), []) for one in excerpts]
        missing = [one for one, paths in zip(excerpts, found, strict=True) if not paths]
        if missing:
            raise InputError(
                f"The folder {printable(system.source)} of the system {system.name} has no audio file for"
                f" {len(missing)} of {len(excerpts)} clips, the first {_names(missing[0])[0]}; files have the relative"
                " path of the reference without its suffix."
            )
        for paths in found:
            if len(paths) > 1:
                raise InputError(
                    f"The system {system.name} has several files for one clip, {printable(paths[0])} and"
                    f" {printable(paths[1].name)}; remove one of them."
                )
        self._paths = [paths[0] for paths in found]
        repeated = next((path for path in self._paths if self._paths.count(path) > 1), None)
        if repeated is not None:
            raise InputError(
                f"Two clips have the same file of the system {system.name}, {printable(repeated)}; name its files with"
                " the data set or the tar in front, or by the ids of the clips."
            )

    def read(self) -> Iterator[np.ndarray]:
        """Yield the reconstruction of each excerpt.

        Raises:
            InputError: a file cannot be read, or its duration is another one.
        """
        for excerpt, path in zip(self._excerpts, self._paths, strict=True):
            samples = read_beginning(stream_audio(path, SAMPLE_RATE, sound=self._sound))
            seconds = len(samples) / SAMPLE_RATE
            if abs(seconds - excerpt.clip_seconds) > LARGEST_DIFFERENCE:
                raise InputError(
                    f"{printable(path)} lasts {seconds:.2f} s, but its reference {excerpt.clip_seconds:.2f} s; a"
                    " reconstruction must be as long as its reference."
                )
            yield fitted(samples[excerpt.first :], len(excerpt.samples))


def _names(excerpt: Excerpt) -> list[str]:
    """Names without suffix that the file of an excerpt may have, the likeliest first."""
    clip = excerpt.clip
    names = [clip.id] if clip.span.id is None else [clip.span.id, clip.id]
    if excerpt.path is None:
        return names
    stem = PurePosixPath(excerpt.path).with_suffix("").as_posix()
    whole = PurePosixPath(clip.source).with_suffix("").as_posix()
    return list(dict.fromkeys([stem, whole, f"{clip.dataset}/{whole}", *names]))
