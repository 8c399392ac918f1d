"""Prepares a listening test: chooses excerpts, reconstructs them with every system, and writes the stimuli."""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from codectok.atomic import replacing_folder
from codectok.audio.files import encode_audio
from codectok.choices import ListeningScale, Precision
from codectok.errors import InputError
from codectok.names import check_new_folder, writable

from .selection import SAMPLE_RATE, CorpusOptions, Excerpt, Skipped, choose_excerpts
from .signals import level_stimuli, low_anchor
from .stored_test import (
    ANCHOR,
    RATINGS_FOLDER,
    REFERENCE,
    STIMULI_FOLDER,
    ListeningTest,
    System,
    TestClip,
    stimulus_path,
)
from .systems import NamedSystem, ReconstructionFolder, check_names, reconstructions

MOST_CLIPS, LONGEST_EXCERPT = 1000, 60.0


@dataclass(frozen=True)
class PreparationOptions:
    """Options of a new listening test.

    Attributes:
        sources: the references, as `evaluate` reads them.
        codecs, folders: systems to compare.
        clips: number of excerpts.
        max_seconds: longest excerpt.
        seed: of the choice and of all orders.
        scale: on which listeners rate.
        keep_levels: do not bring stimuli to one loudness.
        device, dtype: for codecs.
        corpus: how sources are read.

    Raises:
        InputError: a value is impossible, or two systems have one name.
    """

    sources: tuple[str, ...]
    codecs: tuple[NamedSystem, ...] = ()
    folders: tuple[NamedSystem, ...] = ()
    clips: int = 12
    max_seconds: float = 10.0
    seed: int = 0
    scale: ListeningScale = "mushra"
    keep_levels: bool = False
    device: str = "auto"
    dtype: Precision = "float32"
    corpus: CorpusOptions = field(default_factory=CorpusOptions)

    def __post_init__(self) -> None:
        if not self.sources:
            raise InputError("A new listening test needs --reference with the original recordings.")
        check_names([*self.codecs, *self.folders])
        if not 1 <= self.clips <= MOST_CLIPS:
            raise InputError(f"A listening test has 1 to {MOST_CLIPS:,} clips, not {self.clips}.")
        if not (math.isfinite(self.max_seconds) and 1 <= self.max_seconds <= LONGEST_EXCERPT):
            raise InputError(f"Excerpts last 1 to {LONGEST_EXCERPT:g} s, not {self.max_seconds:g}.")


def prepare_test(
    folder: Path,
    options: PreparationOptions,
    on_total: Callable[[int], None] = lambda total: None,
    on_step: Callable[[], None] = lambda: None,
) -> tuple[ListeningTest, Skipped]:
    """Write a new listening test into `folder`, completely or not at all.

    Clips and systems depend on the options alone; the names of the stimuli are random, so that they reveal nothing.

    Args:
        folder: new or empty.
        options: of the test.
        on_total: called with the number of steps, once the clips are chosen.
        on_step: called after each reconstruction.

    Raises:
        InputError: the folder is not empty, or an option or source cannot be used.
        CodectokError: no clip can be used.
    """
    check_new_folder(folder)
    excerpts, skipped = choose_excerpts(
        options.sources, options.clips, options.max_seconds, options.seed, options.corpus
    )
    on_total(len(excerpts) * (len(options.codecs) + len(options.folders)))
    # Before any codec is loaded, since a missing file ends the preparation.
    folders = [ReconstructionFolder(system, excerpts, options.corpus.sound) for system in options.folders]
    with replacing_folder(folder) as temporary:
        (temporary / RATINGS_FOLDER).mkdir()
        (temporary / STIMULI_FOLDER).mkdir()
        systems = [System(name=REFERENCE, kind="reference"), System(name=ANCHOR, kind="anchor")]
        with _kept_samples(temporary / ".samples") as samples:
            for named in options.codecs:
                fingerprint, compute = reconstructions(named, excerpts, options.device, options.dtype)
                source = writable(named.source)
                systems.append(System(name=named.name, kind="codec", source=source, fingerprint=fingerprint))
                samples.add(compute(), on_step)
            for named, files in zip(options.folders, folders, strict=True):
                systems.append(System(name=named.name, kind="folder", source=str(Path(named.source).absolute())))
                samples.add(files.read(), on_step)
            names = [system.name for system in systems[2:]]
            clips = tuple(
                _write_clip(temporary, number, excerpt, samples.of_clip(number, names), options.keep_levels)
                for number, excerpt in enumerate(excerpts)
            )
        test = ListeningTest(
            id=_neutral_id(),
            seed=options.seed,
            scale=options.scale,
            sample_rate=SAMPLE_RATE,
            max_seconds=options.max_seconds,
            keep_levels=options.keep_levels,
            systems=tuple(systems),
            clips=clips,
        )
        test.save(temporary)
    return test, skipped


class _Samples:
    """Reconstructions on disk until all systems of a clip are there, since they are levelled together."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._systems = folder, 0

    def add(self, many: Iterable[np.ndarray], on_step: Callable[[], None]) -> None:
        """Store the reconstructions of one system."""
        for number, samples in enumerate(many):
            np.save(self._path(self._systems, number), samples)
            on_step()
        self._systems += 1

    def of_clip(self, number: int, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Return the reconstructions of a clip by the systems' names."""
        return {name: np.load(self._path(place, number)) for place, name in enumerate(names)}

    def _path(self, system: int, clip: int) -> Path:
        return self._folder / f"{system}-{clip}.npy"


@contextmanager
def _kept_samples(folder: Path) -> Iterator[_Samples]:
    folder.mkdir()
    yield _Samples(folder)
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


def _write_clip(
    folder: Path, number: int, excerpt: Excerpt, systems: dict[str, np.ndarray], keep_levels: bool
) -> TestClip:
    others = {ANCHOR: low_anchor(excerpt.samples, SAMPLE_RATE), **systems}
    reference, levelled = level_stimuli(excerpt.samples, others, SAMPLE_RATE, keep_levels)
    stimuli = {REFERENCE: reference, **levelled}
    ids = {name: _neutral_id() for name in stimuli}
    labelled = _neutral_id()
    for stimulus, samples in [(labelled, reference), *((ids[name], samples) for name, samples in stimuli.items())]:
        stimulus_path(folder, stimulus).write_bytes(encode_audio(samples, SAMPLE_RATE, "wav"))
    clip = excerpt.clip
    return TestClip(
        id=str(number),
        clip=writable(clip.id),
        dataset=writable(clip.dataset),
        source=writable(clip.source),
        start=clip.start + excerpt.first / SAMPLE_RATE,
        seconds=len(excerpt.samples) / SAMPLE_RATE,
        labelled=labelled,
        stimuli=ids,
    )


def _neutral_id() -> str:
    return secrets.token_hex(16)
