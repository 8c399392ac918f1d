"""Recordings of lhotse beside their supervisions: `recordings.jsonl.gz` and `supervisions.jsonl.gz`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from codectok.errors import InputError
from codectok.sources.manifests.read import UnusedField, read_rows_and_unused
from codectok.sources.manifests.row import ManifestRow
from codectok.sources.manifests.text_files import first_line, place_of

from .layout import CorpusFolder, Recognised
from .text_lines import text_lines

RECORDINGS, SUPERVISIONS = "recordings", "supervisions"
SUFFIXES = (".jsonl", ".jsonl.gz")


@dataclass(frozen=True)
class Recordings:
    """A set of recordings, joined with the set of supervisions that has the same name."""

    name: str = "lhotse recordings and supervisions"

    def find(self, folder: CorpusFolder, names: Sequence[str]) -> Recognised | None:
        """Recordings whose supervisions lie beside them."""
        found = [
            name
            for name in names
            if RECORDINGS in name
            and name.endswith(SUFFIXES)
            and folder.exists(_supervisions_of(name))
            and '"sources"' in first_line(folder.root, folder.path(name), folder.encoding)
        ]
        return Recognised(self, [*found, *map(_supervisions_of, found)]) if found else None

    def rows(self, folder: CorpusFolder, names: Sequence[str]) -> Iterator[ManifestRow | UnusedField]:
        """Yield a row for each recording, or for each channel if the supervisions are of different ones."""
        name = names[0]
        spoken = _by_recording(folder, _supervisions_of(name))

        def joined(values: dict[str, Any]) -> dict[str, Any] | list[dict[str, Any]]:
            found = spoken.pop(str(values.get("id")), [])
            return _by_channel(values, found) or values | {SUPERVISIONS: found}

        yield from read_rows_and_unused(folder.root, folder.path(name), joined, folder.encoding)
        yield from (UnusedField("supervisions without a recording", recording) for recording in spoken)


def _supervisions_of(name: str) -> str:
    return SUPERVISIONS.join(name.rsplit(RECORDINGS, 1))


def _by_channel(recording: dict[str, Any], supervisions: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A cut of each channel, as of a call with one party in each; none if all words are of the same channels."""
    spoken = [_channel_of(one) for one in supervisions]
    sources = recording.get("sources")
    if None in spoken or len(set(spoken)) < 2 or not isinstance(sources, list):
        return []
    numbers = [source.get("channels") if isinstance(source, dict) else None for source in sources]
    known = {one for several in numbers if isinstance(several, list) for one in several if isinstance(one, int)}
    whole = {"type": "MonoCut", "start": 0.0, "duration": recording.get("duration"), "recording": recording}
    return [
        whole
        | {
            "id": f"{recording.get('id')}-{channel}",
            "channel": channel,
            SUPERVISIONS: [one for one, of in zip(supervisions, spoken, strict=True) if of == channel],
        }
        for channel in sorted(known | set(spoken))
    ]


def _channel_of(supervision: dict[str, Any]) -> Any:
    channel = supervision.get("channel")
    if isinstance(channel, list) and len(channel) == 1:
        channel = channel[0]
    return channel if isinstance(channel, int) and not isinstance(channel, bool) else None


def _by_recording(folder: CorpusFolder, name: str) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for number, line in text_lines(folder.root, folder.path(name), folder.encoding):
        try:
            values = json.loads(line)
        except (ValueError, RecursionError):
            values = None
        if not isinstance(values, dict) or "recording_id" not in values:
            where = place_of(folder.root, folder.path(name))
            raise InputError(f"Line {number} of {where} is not a supervision of lhotse.")
        found.setdefault(str(values["recording_id"]), []).append(values)
    return found
