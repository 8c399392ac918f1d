"""Shar folders of lhotse: `cuts.000000.jsonl.gz` beside `recording.000000.tar`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from codectok.names import printable
from codectok.sources.manifests.read import UnusedField
from codectok.sources.manifests.row import ManifestRow

from .companion import Companion
from .layout import CorpusFolder, Recognised

CUTS = re.compile(r"cuts(\.[^.]+)?\.jsonl(\.gz)?")
FIELD = re.compile(r"([^.]+)(\.[^.]+)?\.(tar|tar\.gz|tgz|jsonl|jsonl\.gz)")
RECORDING = "recording"


@dataclass(frozen=True)
class Shar:
    """Cuts and the tars of their recordings; tars and tables of other fields are not used."""

    name: str = "lhotse Shar"

    def find(self, folder: CorpusFolder, names: Sequence[str]) -> Recognised | None:
        """All cuts, if one of them has its recordings beside it, and all fields."""
        cuts = [name for name in names if CUTS.fullmatch(name)]
        if not any(folder.exists(_tar_of(name)) for name in cuts):
            return None
        parts = {_part_of(name) for name in cuts}
        fields = [name for name in folder.files if _part_of(name) in parts or name.startswith(f"{RECORDING}.")]
        return Recognised(self, sorted({*cuts, *(name for name in fields if FIELD.fullmatch(name))}))

    def rows(self, folder: CorpusFolder, names: Sequence[str]) -> Iterator[ManifestRow | UnusedField]:
        """Yield a row for each tar of recordings, with its cuts as companion."""
        cuts = [name for name in names if CUTS.fullmatch(name)]
        tars = {_tar_of(name) for name in cuts}
        for name in cuts:
            tar, path = _tar_of(name), folder.path(name)
            if not folder.exists(tar):
                problem = f"The cuts {printable(path)} cannot be used: there is no {tar} beside them."
                yield ManifestRow(path, problem=problem)
                continue
            yield _row(folder, tar, name)
        for name in names:
            if name in tars or name in cuts:
                continue
            field = FIELD.fullmatch(name)
            if field is not None and field[1] == RECORDING:
                problem = f"{printable(folder.path(name))} cannot be used: there are no cuts of it beside it."
                yield ManifestRow(folder.path(name), problem=problem)
            elif field is not None:
                yield UnusedField(f"Shar field: {field[1]}", folder.path(name))


def row_of_shar_tar(folder: CorpusFolder, tar: str) -> ManifestRow | None:
    """The row of a tar that is named without its cuts; None if no cuts lie beside it."""
    found = FIELD.fullmatch(tar)
    if found is None or found[1] != RECORDING or found[3] != "tar":
        return None
    cuts = (f"cuts{found[2] or ''}{suffix}" for suffix in (".jsonl.gz", ".jsonl"))
    name = next((name for name in cuts if folder.exists(name)), None)
    return None if name is None else _row(folder, tar, name)


def _row(folder: CorpusFolder, tar: str, cuts: str) -> ManifestRow:
    companion = Companion(layout="shar", path=folder.path(cuts), size=folder.size(cuts))
    return ManifestRow(folder.path(tar), companion=companion.model_dump_json())


def _part_of(name: str) -> str | None:
    found = FIELD.fullmatch(name)
    return found[2] if found else None


def _tar_of(cuts: str) -> str:
    found = CUTS.fullmatch(cuts)
    return f"{RECORDING}{found[1] or ''}.tar" if found else ""
