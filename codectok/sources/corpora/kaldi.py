"""Data folders of Kaldi: `wav.scp`, `segments`, `text`, `utt2spk` and the like."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from codectok.sources.manifests.lines import line_problem
from codectok.sources.manifests.read import UnusedField, bad_row, with_extra
from codectok.sources.manifests.row import ManifestRow
from codectok.storage import is_url

from .layout import CorpusFolder, Recognised
from .text_lines import text_lines

WAVES = "wav.scp"
TABLES = ("text", "utt2spk", "utt2lang", "spk2gender", "reco2file_and_channel")
OTHER_TABLES = (
    "utt2dur",
    "reco2dur",
    "spk2utt",
    "utt2num_frames",
    "feats.scp",
    "cmvn.scp",
    "vad.scp",
    "utt2uniq",
    "stm",
)
ARCHIVE = re.compile(r"\.ark:\d+(\[.*\])?$")
SIDES = {"A": 0, "B": 1, "1": 0, "2": 1}
# Recipes are run some levels above their data folders, and name files from there.
LEVELS = 4


@dataclass(frozen=True)
class Kaldi:
    """A data folder of Kaldi. Commands in `wav.scp` are never executed."""

    name: str = "Kaldi"

    def find(self, folder: CorpusFolder, names: Sequence[str]) -> Recognised | None:
        """A folder with `wav.scp`."""
        if WAVES not in names:
            return None
        own = (WAVES, "segments", *TABLES, *OTHER_TABLES)
        return Recognised(self, [name for name in own if name == WAVES or name in folder.files])

    def rows(self, folder: CorpusFolder, names: Sequence[str]) -> Iterator[ManifestRow | UnusedField]:
        """Yield a row for each segment, or for each recording without `segments`."""
        tables = _Tables.read(folder)
        yield from (UnusedField(f"repeated lines of {table}", key) for table, key in tables.repeated)
        recordings = _recordings(folder)
        if folder.exists("segments"):
            yield from _segments(folder, recordings, tables)
        else:
            for utterance, recording in recordings.items():
                yield _described(recording.row, utterance, utterance, tables, recording)
        yield from (UnusedField("text without audio", folder.path(utterance)) for utterance in tables.text)


@dataclass
class _Recording:
    """A recording of `wav.scp`; `shared` if another one is the same file."""

    row: ManifestRow
    shared: bool = False


@dataclass
class _Tables:
    """Tables of two columns; texts are removed as they are used."""

    text: dict[str, str] = field(default_factory=dict)
    utt2spk: Mapping[str, str] = field(default_factory=dict)
    utt2lang: Mapping[str, str] = field(default_factory=dict)
    spk2gender: Mapping[str, str] = field(default_factory=dict)
    reco2file_and_channel: Mapping[str, str] = field(default_factory=dict)
    repeated: list[tuple[str, str]] = field(default_factory=list)

    @classmethod
    def read(cls, folder: CorpusFolder) -> _Tables:
        repeated: list[tuple[str, str]] = []
        found = {name: _table(folder, name, repeated) for name in TABLES if folder.exists(name)}
        return cls(**found, repeated=repeated)


def _table(folder: CorpusFolder, name: str, repeated: list[tuple[str, str]]) -> dict[str, str]:
    """The first value of each key; keys with another one are added to `repeated`."""
    found: dict[str, str] = {}
    for _, line in text_lines(folder.root, folder.path(name), folder.encoding):
        key, _, value = line.strip().replace("\t", " ", 1).partition(" ")
        value = value.strip()
        if value and found.setdefault(key, value) != value:
            repeated.append((name, key))
    return found


def _recordings(folder: CorpusFolder) -> dict[str, _Recording]:
    found: dict[str, _Recording] = {}
    first: dict[str, _Recording] = {}
    name, base = folder.path(WAVES), None
    for number, line in text_lines(folder.root, name, folder.encoding):
        key, _, place = line.strip().replace("\t", " ", 1).partition(" ")
        place = place.strip()
        problem = _problem_of(place)
        if key in found:
            problem = problem or f"the recording {key} is named before"
            key = f"{key} (line {number})"
        if problem is not None:
            found[key] = _Recording(bad_row(number, name, problem))
            continue
        base = _base(folder, place) if base is None else base
        recording = _Recording(ManifestRow(folder.path(place if _is_absolute(place) else base + place)))
        same = first.setdefault(recording.row.path, recording)
        if same is not recording:
            same.shared = recording.shared = True
        found[key] = recording
    return found


def _problem_of(place: str) -> str | None:
    if not place:
        return "it has no path"
    if place.endswith("|") or place.startswith("|"):
        return "its audio is the output of a command, which is never executed; write it to a file first"
    if ARCHIVE.search(place):
        return "its audio lies in an archive of Kaldi, which cannot be read"
    if "\0" in place or place == "-":
        return "its path cannot be a path of a file"
    return None


def _is_absolute(place: str) -> bool:
    return place.startswith("/") or is_url(place)


def _base(folder: CorpusFolder, place: str) -> str:
    """The nearest folder, "" or "../" and so on, from which `place` exists; "" if there is none."""
    bases = [level * "../" for level in range(LEVELS)]
    return "" if is_url(folder.root) else next((base for base in bases if folder.exists(base + place)), "")


def _segments(
    folder: CorpusFolder, recordings: dict[str, _Recording], tables: _Tables
) -> Iterator[ManifestRow | UnusedField]:
    name, cut = folder.path("segments"), set()
    seen: set[str] = set()
    for number, line in text_lines(folder.root, name, folder.encoding):
        fields = line.split()
        try:
            utterance, key, start, end, channel = _segment(fields)
            recording = recordings.get(key)
            if recording is None:
                raise ValueError(f"{WAVES} has no recording {key}")
            if utterance in seen:
                raise ValueError(f"the utterance {utterance} is named before")
        except ValueError as error:
            yield bad_row(number, name, str(error))
            continue
        cut.add(key)
        seen.add(utterance)
        row = recording.row
        if row.problem is not None:
            problem = row.problem.removesuffix(".")
            yield row._replace(id=utterance, problem=line_problem(number, name, problem))
            tables.text.pop(utterance, None)
            continue
        span = row._replace(start=start, end=end, channel=channel)
        yield _described(span, utterance, key, tables, recording)
    yield from (
        UnusedField("recordings without segments", row.row.path) for key, row in recordings.items() if key not in cut
    )


def _segment(fields: list[str]) -> tuple[str, str, float, float | None, int | None]:
    if len(fields) not in (4, 5):
        raise ValueError("it does not have a name, a recording, a start and an end")
    try:
        start, end = float(fields[2]), float(fields[3])
        channel = int(fields[4]) if len(fields) == 5 else None
    except ValueError:
        raise ValueError("its start and end are not numbers of seconds") from None
    if not 0 <= start < float("inf"):
        raise ValueError(f"its start ({start:g} s) is not a time in the recording")
    if channel is not None and channel < 0:
        raise ValueError(f"its channel ({channel}) is not a number from 0 on")
    if end == -1:
        return fields[0], fields[1], start, None, channel
    if not start < end < float("inf"):
        raise ValueError(f"its end ({end:g} s) is not after its start ({start:g} s)")
    return fields[0], fields[1], start, end, channel


def _described(row: ManifestRow, utterance: str, key: str, tables: _Tables, recording: _Recording) -> ManifestRow:
    text = tables.text.pop(utterance, None)
    if row.problem is not None:
        return row
    speaker = tables.utt2spk.get(utterance)
    gender = tables.spk2gender.get(speaker or "")
    channel = row.channel
    if recording.shared and channel is None:
        # Elsewhere the table names parties of a call that have a file each.
        named = tables.reco2file_and_channel.get(key, "").split()
        channel = SIDES.get(named[1].upper()) if len(named) == 2 else None
        if channel is None:
            problem = f"the recording {key} is the same file as another one, and no channel is named for it"
            return row._replace(problem=f"The recording {key} of {WAVES} cannot be used: {problem}.", id=utterance)
    labels: dict[str, Any] = {} if gender is None else {"gender": gender}
    described = row._replace(
        id=utterance, text=text, speaker=speaker, language=tables.utt2lang.get(utterance), channel=channel
    )
    return with_extra(described, labels)
