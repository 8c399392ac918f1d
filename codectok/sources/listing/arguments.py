"""Parses the sources of a command line: folders, patterns, files, manifests, or URLs of them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Literal

from codectok.audio.files import is_film_path
from codectok.config import StrictModel
from codectok.errors import InputError
from codectok.names import printable
from codectok.path_text import PathText
from codectok.sources.kinds import Kind, kind_of
from codectok.sources.manifests.read import MANIFEST_NAMES, MANIFEST_SUFFIXES
from codectok.storage import is_url, open_file_system

MAGIC = "*?["
ArgumentKind = Literal["folder", "glob", "file", "manifest"]


class Argument(StrictModel):
    """A source of a command line.

    Attributes:
        dataset: name of the root.
        kind: how it is listed.
        pattern: relative to the root, so that a corpus may move; "" for a whole folder.
    """

    dataset: str
    kind: ArgumentKind
    pattern: PathText = ""


def parse_arguments(
    arguments: Iterable[str], kinds: tuple[Kind, ...] = ()
) -> tuple[tuple[Argument, ...], dict[str, str]]:
    """Parse the sources of a command line; duplicates are dropped.

    A source is a folder, a pattern such as `corpus/*/wav/**/*.flac`, a file, a manifest, or the URL of one of them. Its
    dataset is named after the folder or manifest, or by `NAME=SOURCE`. A text is a source as a whole if a folder, or a
    file, has the name before its first "/", or matches it.

    Args:
        arguments: the sources.
        kinds: of files that will be read; with "lines", a file of JSON lines is not a manifest.

    Returns:
        The arguments, sorted, and the root of every dataset.

    Raises:
        InputError: a source does not exist or is empty, a pattern is not valid, or two datasets have one name.
    """
    roots: dict[str, str] = {}
    parsed: dict[tuple[str, ArgumentKind, str], Argument] = {}
    for text in arguments:
        argument, root = _parse(text, "lines" not in kinds)
        if roots.setdefault(argument.dataset, root) != root:
            raise InputError(f"Two sources are named {argument.dataset!r}; name one of them, as in other={text}.")
        parsed[argument.dataset, argument.kind, argument.pattern] = argument
    return tuple(parsed[key] for key in sorted(parsed)), dict(sorted(roots.items()))


def exists_below(argument: Argument, root: str) -> bool:
    """True if `root` holds anything that `argument` may name; False if `root` cannot be read."""
    name = argument.pattern if argument.kind in ("file", "manifest") else ""
    if is_url(root):
        try:
            files, path = open_file_system(f"{root.rstrip('/')}/{name}")
            files.invalidate_cache()
            return bool(files.exists(path))
        except Exception:  # every store's client has its own errors
            return False
    place = Path(root) / name
    try:
        return place.is_file() if name else any(place.iterdir())
    except OSError:
        return False


def _parse(text: str, manifests: bool) -> tuple[Argument, str]:
    name, separator, rest = text.partition("=")
    if separator and name and "/" not in name and not _is_path(text):
        argument, root = _parse(rest, manifests)
        return argument.model_copy(update={"dataset": printable(name)}), root
    if not text:
        raise InputError("A source is empty; name a folder, a pattern, a file, a manifest, or the URL of one of them.")
    remote = is_url(text)
    if manifests and (remote or Path(text).is_file()):
        parent, name = _split(text) if remote else _parent_and_name(Path(text))
        if name in MANIFEST_NAMES:
            return _argument(_last(parent), kind="manifest", pattern=name), parent
        suffixes = [suffix for suffix in MANIFEST_SUFFIXES if name.lower().endswith(suffix)]
        if suffixes:
            return _argument(name[: -max(map(len, suffixes))], kind="manifest", pattern=name), parent
    if not remote and Path(text).is_dir():
        folder = Path(text).resolve()
        return _argument(folder.name or "root", kind="folder"), str(folder)
    if not remote and Path(text).is_file():
        parent, name = _parent_and_name(Path(text))
        named_after = Path(name).stem if kind_of(name) == "lines" else Path(parent).name
        return _argument(named_after or "root", kind="file", pattern=name), parent
    if any(character in text for character in MAGIC):
        fixed = PurePosixPath(text.split("://", 1)[-1])
        parts = fixed.parts
        plain = next(i for i, part in enumerate(parts) if any(character in part for character in MAGIC))
        pattern = "/".join(parts[plain:])
        _check_pattern(pattern)
        root = text[: -len(pattern)].rstrip("/") if remote else str(Path(*parts[:plain]).resolve())
        return _argument(_last(root), kind="glob", pattern=pattern), root
    if remote:
        root = text.rstrip("/")
        if is_film_path(root) or kind_of(root) in ("audio", "tar", "parquet", "lines"):
            parent, name = _split(root)
            return _argument(_last(parent), kind="file", pattern=name), parent
        return _argument(_last(root), kind="folder"), root
    raise InputError(f"There is no file or folder {text}.")


def _is_path(text: str) -> bool:
    """True if `text` exists, or its first component names or matches something in the current folder."""
    first, separator, _ = text.partition("/")
    if Path(text).exists():
        return True
    return "**" not in first and any(path.is_dir() or not separator for path in Path().glob(first))


def _check_pattern(pattern: str) -> None:
    """Raise an `InputError` if `**` is a part of a component: not all versions of Python read such patterns."""
    for part in pattern.split("/"):
        if "**" in part and part != "**":
            advised = re.sub(r"\*+", "*", part)
            raise InputError(f"In the pattern {pattern}, ** is only a part of a name; write **/{advised} instead.")


def _argument(dataset: str, kind: ArgumentKind, pattern: str = "") -> Argument:
    return Argument(dataset=printable(dataset), kind=kind, pattern=pattern)


def _parent_and_name(path: Path) -> tuple[str, str]:
    # A linked folder is resolved; a linked file keeps its name.
    return str(path.parent.resolve()), path.name


def _split(url: str) -> tuple[str, str]:
    parent, _, name = url.rpartition("/")
    return parent, name


def _last(root: str) -> str:
    return root.rstrip("/").rpartition("/")[2] or "root"
