"""The file of a listening test: its systems, its clips, and the neutral names of the stimuli."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from codectok.atomic import write_text
from codectok.choices import ListeningScale
from codectok.config import StrictModel, load_mapping, parse
from codectok.errors import ConfigError, InputError
from codectok.path_text import PathText

from .scales import SCALES, PageKind, Scale

TEST_FILE, STIMULI_FOLDER, RATINGS_FOLDER = "listening.json", "stimuli", "ratings"
REFERENCE, ANCHOR = "reference", "anchor"

NeutralId = Annotated[str, StringConstraints(pattern=re.compile(r"^[0-9a-f]{32}\Z"))]
"""Random name of a stimulus, which does not reveal its system."""


class System(StrictModel):
    """A system of the test: the hidden reference, the low anchor, a codec or a folder of reconstructions.

    Attributes:
        name: in results.
        kind: of these four.
        source: name of the codec, or the folder; None for reference and anchor.
        fingerprint: of a codec.
    """

    name: str
    kind: Literal["reference", "anchor", "codec", "folder"]
    source: PathText | None = None
    fingerprint: str | None = None


class TestClip(StrictModel):
    """An excerpt that listeners rate.

    Attributes:
        id: number in the test.
        clip: id of the clip in the corpus.
        dataset, source: of the clip.
        start: of the excerpt in the recording, in seconds.
        seconds: duration.
        labelled: stimulus of the labelled reference.
        stimuli: stimulus of each system, by its name.
    """

    id: Annotated[str, StringConstraints(pattern=re.compile(r"^[0-9]{1,6}\Z"))]
    clip: str
    dataset: str
    source: str
    start: float
    seconds: float
    labelled: NeutralId
    stimuli: dict[str, NeutralId]


@dataclass(frozen=True)
class Page:
    """One page of the test: the stimuli of a clip, to be rated on the scales of a kind."""

    clip: TestClip
    kind: PageKind

    @property
    def id(self) -> str:
        """Name of the page, the same for all listeners."""
        return f"{self.clip.id}-{self.kind}"

    @property
    def scales(self) -> tuple[Scale, ...]:
        """Scales on which each stimulus is rated."""
        return SCALES[self.kind]


class ListeningTest(StrictModel):
    """Contents of `listening.json`.

    Attributes:
        id: random name of the test.
        seed: of the choice of clips and of the orders.
        scale: "clarity", "mushra" or "both".
        sample_rate: of the stimuli in Hz.
        max_seconds: longest excerpt.
        keep_levels: False if stimuli have the loudness of their reference.
        systems: in the order of results; the first is the hidden reference, the second the low anchor.
        clips: the excerpts.
    """

    format: Literal["codectok.listening"] = "codectok.listening"
    version: Literal[1] = 1
    id: NeutralId
    seed: int
    scale: ListeningScale
    sample_rate: int
    max_seconds: float
    keep_levels: bool
    systems: tuple[System, ...] = Field(min_length=3)
    clips: tuple[TestClip, ...] = Field(min_length=1)

    @property
    def kinds(self) -> tuple[PageKind, ...]:
        """Kinds of pages, in the order in which listeners see them."""
        return ("clarity", "mushra") if self.scale == "both" else (self.scale,)

    @cached_property
    def pages(self) -> Mapping[str, Page]:
        """All pages by id."""
        pages = [Page(clip, kind) for kind in self.kinds for clip in self.clips]
        return {page.id: page for page in pages}

    @cached_property
    def stimulus_ids(self) -> frozenset[str]:
        """Ids of all stimuli, the labelled references included."""
        return frozenset(name for clip in self.clips for name in (clip.labelled, *clip.stimuli.values()))

    def save(self, folder: Path) -> None:
        """Write `listening.json` into `folder`."""
        write_text(folder / TEST_FILE, self.model_dump_json(indent=2) + "\n")


def is_listening_test(folder: Path) -> bool:
    """Return True if `folder` holds a listening test."""
    return (folder / TEST_FILE).is_file()


def load_test(folder: Path) -> ListeningTest:
    """Read a listening test, and check that all of its stimuli are there.

    Raises:
        InputError: the file cannot be used, or a stimulus is missing.
    """
    path = folder / TEST_FILE
    test = parse(ListeningTest, load_mapping(path), str(path))
    names = {system.name for system in test.systems}
    if len(names) < len(test.systems) or [system.kind for system in test.systems[:2]] != [REFERENCE, ANCHOR]:
        raise ConfigError(f"{path} must name the reference, the anchor, and systems with different names.")
    if len(test.pages) < len(test.clips) * len(test.kinds):
        raise ConfigError(f"{path} has two clips with one id.")
    for clip in test.clips:
        if set(clip.stimuli) != names:
            raise ConfigError(f"{path}: clip {clip.id} does not have one stimulus for each system.")
    missing = [name for name in sorted(test.stimulus_ids) if not stimulus_path(folder, name).is_file()]
    if missing:
        raise InputError(
            f"{folder} lacks {len(missing)} of {len(test.stimulus_ids)} stimuli, the first"
            f" {stimulus_path(folder, missing[0])}; prepare the test again in another folder."
        )
    return test


def stimulus_path(folder: Path, stimulus: str) -> Path:
    """Return the file of a stimulus; the id must be one of the test's."""
    return folder / STIMULI_FOLDER / f"{stimulus}.wav"
