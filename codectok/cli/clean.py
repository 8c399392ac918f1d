"""`codectok clean`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from codectok.errors import InputError
from codectok.formatting import counted, megabytes

from .console import rows_table, say

NAME = "clean"
EXAMPLE = "codectok clean tokens/ --dry-run"


@dataclass(frozen=True)
class _Kind:
    """Files of one kind: their number and size, and the name of one."""

    name: str
    files: int
    bytes: int
    example: str


def run(
    output: Annotated[str, typer.Argument(metavar="OUT", help="Output folder or URL of a job, or folder of `train`.")],
    yes: Annotated[bool, typer.Option("--yes", help="Remove without a question.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the files, and remove nothing.")] = False,
    failures: Annotated[
        bool, typer.Option("--failures", help="Remove the errors of failed units as well, which `status` shows.")
    ] = False,
) -> None:
    """Remove the leftovers of killed runs from an output; finished units stay.

    The same command that was killed removes the same files when it continues. A job that is running is refused.
    """
    kinds, remove = _leftovers_of(output, failures)
    if not kinds:
        say(f"{output} holds nothing that a killed run has left.")
        return
    rows = [(kind.name, f"{kind.files:,}", megabytes(kind.bytes), kind.example) for kind in kinds]
    rows_table(f"codectok clean {output}", ("left by killed runs", "files", "size", "such as"), rows)
    if dry_run:
        return
    count = sum(kind.files for kind in kinds)
    if not yes:
        _ask(count)
    removed = remove()
    say(f"{counted(removed, 'file')} removed.")


def _ask(count: int) -> None:
    try:
        agreed = typer.confirm(f"Remove {counted(count, 'file')}?")
    except typer.Abort:
        raise InputError(
            "Nothing was removed, since the question was not answered; pass --yes to go without."
        ) from None
    if not agreed:
        say("Nothing was removed.")
        raise typer.Exit


def _leftovers_of(output: str, failures: bool) -> tuple[list[_Kind], Callable[[], int]]:
    """Kinds of leftovers in `output`, and the function that removes them and returns their number."""
    from codectok.storage import is_url, open_storage

    if not is_url(output) and not (Path(output) / "_codectok").is_dir():
        from codectok.train.report.status import training_folders

        folders = training_folders(Path(output))
        if folders:
            return _leftovers_of_training(folders)
    from codectok.pipelines.engine.cleaning import Leftover, find_leftovers, remove_leftovers

    storage = open_storage(output)
    found = find_leftovers(storage, failures)

    def kind_of(name: str) -> _Kind:
        members: Sequence[Leftover] = [one for one in found if one.kind == name]
        return _Kind(name, len(members), sum(one.bytes for one in members), members[0].name)

    return [kind_of(name) for name in dict.fromkeys(one.kind for one in found)], lambda: len(
        remove_leftovers(storage, found)
    )


def _leftovers_of_training(folders: Sequence[Path]) -> tuple[list[_Kind], Callable[[], int]]:
    from codectok.atomic import leftovers_in, remove_leftovers_in
    from codectok.train.run.output import folders_with_leftovers

    places = [place for folder in folders for place in folders_with_leftovers(folder)]
    found = [path for place in places for path in leftovers_in(place)]
    size = sum(file.stat().st_size for path in found for file in (path, *path.rglob("*")) if file.is_file())

    def remove() -> int:
        for place in places:
            remove_leftovers_in(place)
        return len(found)

    return [_Kind("half-written files", len(found), size, found[0].name)] if found else [], remove
