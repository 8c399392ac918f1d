"""Labels in the names of folders, as Hive writes them: `language=de/speaker=ann/`."""

from __future__ import annotations

import functools
import itertools
import json
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote

from codectok.audio.spans import Labels
from codectok.names import printable
from codectok.sources.clip import Clip
from codectok.sources.labels import CATEGORIES, LANGUAGES, SPEAKERS
from codectok.sources.manifests.row import ManifestRow
from codectok.sources.source import Source

MISSING = "__HIVE_DEFAULT_PARTITION__"
FIELDS = {"language": LANGUAGES, "speaker": SPEAKERS, "category": CATEGORIES}


def labelled_end(root: str) -> str:
    """The last folders of a root whose names are labels, such as `language=de/`; "" if there are none."""
    parts = root.rstrip("/").split("/")
    labelled = list(itertools.takewhile(lambda part: "=" in part, reversed(parts)))
    return "".join(f"{part}/" for part in reversed(labelled))


def described_by_folders(row: ManifestRow | None, path: str, above: str = "") -> ManifestRow | None:
    """The row of the file at `path`, with the labels of its folders where it has none; None without any label.

    `above` is the `labelled_end` of the root.
    """
    folder = above + path[: path.rfind("/") + 1]
    if "=" not in folder:
        return row
    labels, extra = _labels(folder)
    if not labels and not extra:
        return row
    row = ManifestRow(path) if row is None else row
    if row.problem is not None:
        return row
    new: dict[str, Any] = {name: value for name, value in labels.items() if getattr(row, name) is None}
    return row._replace(**new, extra=merged_extra(row.extra, extra))


def with_labels_of(container: Source, clip: Clip) -> Clip:
    """The clip with the labels of its tar or Parquet file where it has none."""
    given = (container.language, container.speaker, container.category, container.extra)
    if given == (None, None, None, None):
        return clip
    own = clip.span.labels
    labels = Labels(
        own.language or container.language, own.speaker or container.speaker, own.category or container.category
    )
    extra = json.loads(container.extra) if container.extra else {}
    return replace(clip, span=replace(clip.span, labels=labels, extra=merged_extra(clip.span.extra, extra)))


def merged_extra(extra: str | None, labels: dict[str, Any]) -> str | None:
    """JSON of further labels with `labels` added where they are missing."""
    if not labels:
        return extra
    known = json.loads(extra) if extra else {}
    return json.dumps({**labels, **known}, ensure_ascii=False, sort_keys=True)


@functools.lru_cache(maxsize=1024)
def _labels(folder: str) -> tuple[dict[str, str], dict[str, str]]:
    labels: dict[str, str] = {}
    extra: dict[str, str] = {}
    for part in PurePosixPath(folder).parts:
        name, separator, value = part.partition("=")
        value = unquote(value)
        if not separator or not name or not value or value == MISSING:
            continue
        name, value = printable(unquote(name)), printable(value)
        field = next((field for field, names in FIELDS.items() if name.lower() in names), None)
        if field is None:
            extra[name] = value
        else:
            labels[field] = value
    return labels, extra
