"""Tarred data sets of NeMo: `audio_0.tar` and on, and a manifest whose lines name their shard."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from codectok.errors import InputError
from codectok.names import printable
from codectok.sources.encodings import lines_of
from codectok.sources.manifests.read import UnusedField, bad_row
from codectok.sources.manifests.row import ManifestRow
from codectok.sources.manifests.text_files import first_line, open_binary, place_of

from .companion import Companion
from .layout import CorpusFolder, Recognised

SUFFIXES = (".json", ".jsonl", ".json.gz", ".jsonl.gz")
MANIFEST = "tarred_audio_manifest.json"
TAR = re.compile(r"audio_\d+\.tar")


@dataclass(frozen=True)
class NemoTarred:
    """Tars of audio and one manifest of their members."""

    name: str = "NeMo tarred"

    def find(self, folder: CorpusFolder, names: Sequence[str]) -> Recognised | None:
        """The one manifest whose first shard lies beside it; several are not read."""
        tars = [name for name in folder.files if TAR.fullmatch(name)]
        if folder.files and not tars:
            return None  # opens no JSON files in vain
        found = [name for name in names if name.endswith(SUFFIXES) and _first_tar_exists(folder, name)]
        if not found:
            return None
        return Recognised(self, [*found, *tars]) if len(found) == 1 else Recognised(self, (), found)

    def rows(self, folder: CorpusFolder, names: Sequence[str]) -> Iterator[ManifestRow | UnusedField]:
        """Yield a row for each tar, with the range of its lines in the manifest."""
        manifest, *tars = names
        path = folder.path(manifest)
        ranges: dict[int, tuple[int, int, int]] = {}
        try:
            with open_binary(folder.root, path) as file:
                begins = 0
                for number, line in enumerate(lines_of(file), start=1):
                    ends = begins + len(line)
                    shard = _shard_of(line) if line.strip() else -1
                    if shard is None:
                        yield bad_row(number, path, "it is not a JSON object with a `shard_id`")
                    elif shard >= 0:
                        ranges[shard] = (*ranges.get(shard, (number, begins))[:2], ends)
                    begins = ends
        except InputError:
            raise
        except (OSError, EOFError, ValueError) as error:
            raise InputError(f"{place_of(folder.root, path)} cannot be read: {error}.") from None
        for shard, (number, first, last) in sorted(ranges.items()):
            companion = Companion(
                layout="nemo",
                path=path,
                size=folder.size(manifest),
                first_byte=first,
                last_byte=last,
                first_line=number,
            )
            yield ManifestRow(folder.path(_tar(shard)), companion=companion.model_dump_json())
        for tar in sorted(set(tars) - {_tar(shard) for shard in ranges}):
            problem = f"{printable(folder.path(tar))} cannot be used: no line of {manifest} names it."
            yield ManifestRow(folder.path(tar), problem=problem)


def row_of_nemo_tar(folder: CorpusFolder, tar: str) -> ManifestRow | None:
    """The row of a tar that is named without its manifest; None if no manifest lies beside it."""
    if not TAR.fullmatch(tar) or not folder.exists(MANIFEST):
        return None
    companion = Companion(layout="nemo", path=folder.path(MANIFEST), size=folder.size(MANIFEST))
    return ManifestRow(folder.path(tar), companion=companion.model_dump_json())


def shard_of(values: dict[str, Any]) -> int | None:
    """The number of the tar that a line names; None if it names none."""
    shard = values.get("shard_id")
    return shard if isinstance(shard, int) and not isinstance(shard, bool) and shard >= 0 else None


def _shard_of(line: bytes) -> int | None:
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return shard_of(values) if isinstance(values, dict) else None


def _tar(shard: int) -> str:
    return f"audio_{shard}.tar"


def _first_tar_exists(folder: CorpusFolder, name: str) -> bool:
    line = first_line(folder.root, folder.path(name), folder.encoding)
    if '"shard_id"' not in line:
        return False
    shard = _shard_of(line.encode())
    return shard is not None and folder.exists(_tar(shard))
