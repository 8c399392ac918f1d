"""What the sources of a command line mean: folders, patterns, files, manifests, or URLs of them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Literal

from codectok.config import StrictModel
from codectok.errors import InputError
from codectok.storage import is_url, open_file_system

from .manifests import MANIFEST_SUFFIXES
from .source import Kind, kind_of

MAGIC = "*?["


class Argument(StrictModel):
    """A source as it was asked for.

    Attributes:
        dataset: its name.
        kind: how it is listed.
        pattern: what is listed, relative to the root, so that a corpus may move ("" for a whole folder).
    """

    dataset: str
    kind: Literal["folder", "glob", "file", "manifest"]
    pattern: str = ""


def parse_arguments(
    arguments: Iterable[str], kinds: tuple[Kind, ...] = ()
) -> tuple[tuple[Argument, ...], dict[str, str]]:
    """What each argument of the command line means, in order and each once, and the root of every dataset.

    An argument is a folder, a pattern such as `corpus/*/wav/**.flac`, a file, a manifest, or the URL of one of them.
    Its dataset is named after the folder (the manifest); `NAME=SOURCE` gives another name. Where `kinds` has "lines",
    files of lines are themselves what is read, and no manifests.

    Raises:
        InputError: an argument that does not exist, or two datasets of one name.
    """
    roots: dict[str, str] = {}
    parsed: set[tuple[str, str, str]] = set()
    for text in arguments:
        argument, root = _parse(text, "lines" not in kinds)
        if roots.setdefault(argument.dataset, root) != root:
            raise InputError(f"Two sources are named {argument.dataset!r}; name one of them, as in other={text}.")
        parsed.add((argument.dataset, argument.kind, argument.pattern))
    ordered = [Argument(dataset=d, kind=k, pattern=p) for d, k, p in sorted(parsed)]  # type: ignore[arg-type]
    return tuple(ordered), dict(sorted(roots.items()))


def still_there(argument: Argument, root: str) -> bool:
    """Whether anything lies at `root` that `argument` may name; not where nobody can look."""
    name = argument.pattern if argument.kind in ("file", "manifest") else ""
    if is_url(root):
        try:
            files, path = open_file_system(f"{root.rstrip('/')}/{name}")
            files.invalidate_cache()
            return bool(files.exists(path))
        except Exception:  # every store's client has errors of its own
            return False
    place = Path(root) / name
    try:
        return place.is_file() if name else any(place.iterdir())
    except OSError:
        return False


def _parse(text: str, manifests: bool) -> tuple[Argument, str]:
    name, separator, rest = text.partition("=")
    if separator and name and "/" not in name and not Path(text).exists():
        argument, root = _parse(rest, manifests)
        return argument.model_copy(update={"dataset": name}), root
    remote = is_url(text)
    if manifests and text.lower().endswith(MANIFEST_SUFFIXES) and (remote or Path(text).is_file()):
        parent, name = _split(text) if remote else _parent_and_name(Path(text))
        stem = name[: -max(len(suffix) for suffix in MANIFEST_SUFFIXES if name.lower().endswith(suffix))]
        return Argument(dataset=stem, kind="manifest", pattern=name), parent
    if not remote and Path(text).is_dir():
        folder = Path(text).resolve()
        return Argument(dataset=folder.name or "root", kind="folder"), str(folder)
    if not remote and Path(text).is_file():
        parent, name = _parent_and_name(Path(text))
        named_after = Path(name).stem if kind_of(name) == "lines" else Path(parent).name
        return Argument(dataset=named_after or "root", kind="file", pattern=name), parent
    if any(character in text for character in MAGIC):
        fixed = PurePosixPath(text.split("://", 1)[-1])
        parts = fixed.parts
        plain = next(i for i, part in enumerate(parts) if any(character in part for character in MAGIC))
        pattern = "/".join(parts[plain:])
        root = text[: -len(pattern)].rstrip("/") if remote else str(Path(*parts[:plain]).resolve())
        return Argument(dataset=_last(root), kind="glob", pattern=pattern), root
    if remote:
        root = text.rstrip("/")
        if kind_of(root) in ("audio", "tar", "parquet", "lines"):
            parent, name = _split(root)
            return Argument(dataset=_last(parent), kind="file", pattern=name), parent
        return Argument(dataset=_last(root), kind="folder"), root
    raise InputError(f"There is no file or folder {text}.")


def _parent_and_name(path: Path) -> tuple[str, str]:
    # The folder may be a link and is resolved; a file that is a link keeps its own name.
    return str(path.parent.resolve()), path.name


def _split(url: str) -> tuple[str, str]:
    parent, _, name = url.rpartition("/")
    return parent, name


def _last(root: str) -> str:
    return root.rstrip("/").rpartition("/")[2] or "root"
