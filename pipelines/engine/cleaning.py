"""Removes the leftovers of dead runs of a job: attempts, files of unfinished units, half-written files, old leases.

The next run of the same command removes the same files when it comes to them. Files of finished units stay.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from codectok.errors import InputError, first_line
from codectok.names import JOB_FOLDER
from codectok.storage import LocalStorage, Storage, open_storage

from .executors.node_checks import PROBES
from .lock import LOCKS, WHOLE, entry, held_locks, lock_job, refuse
from .output.folder import TEMPORARY, finished_units, is_half_written, other_outputs, own_names
from .output.record_set import UnitRecords
from .output.unit_files import FAILURES, unit_of_file
from .planning.plan import load_plan
from .run import FIRST_PASS_FOLDER
from .status import runs_of
from .uploads import UnfinishedUpload, abort_upload, listed_uploads

# Held, and released, by `remove_leftovers` itself.
OWN_LOCKS = (f"{LOCKS}/entry", f"{LOCKS}/{WHOLE}")

LeftoverKind = Literal["attempts", "unfinished units", "half-written files", "leases", "probes", "uploads", "failures"]


@dataclass(frozen=True, order=True)
class Leftover:
    """A file that a dead run has left.

    Attributes:
        kind: "probes" are files by which machines of a cluster were compared; "failures" are texts about failed units,
            which are removed on request only.
        name: relative to the output.
        bytes: size; 0 if unknown.
        upload: the upload in parts, if the leftover is one.
    """

    kind: LeftoverKind
    name: str
    bytes: int = 0
    upload: UnfinishedUpload | None = None


def find_leftovers(storage: Storage, failures: bool = False) -> list[Leftover]:
    """List the files that dead runs have left in an output, also in its first pass; removes nothing.

    Args:
        storage: the output.
        failures: list the texts about failed units as well.

    Raises:
        InputError: the folder holds no job, or a process works on it.
    """
    _refuse_living(storage, held_locks(storage))
    return _leftovers(storage, failures)


def remove_leftovers(storage: Storage, leftovers: Collection[Leftover]) -> list[Leftover]:
    """Remove `leftovers`, as far as they still are leftovers, and return them; holds the lock of the job meanwhile.

    Raises:
        InputError: a process works on the job.
    """
    with ExitStack() as stack:
        with entry(storage):
            # Takes over the leases of dead runs, and removes them.
            lock = lock_job(storage, None)
            stack.callback(lock.release)
        _refuse_living(storage, {})
        removed = [one for one in leftovers if one.kind == "leases"]
        removed += set(leftovers).intersection(_leftovers(storage, failures=True)) - set(removed)
        for folder in sorted({_attempt_folder(one.name) for one in removed if one.kind == "attempts"}):
            lock.check()
            storage.remove(folder)
        for one in removed:
            lock.check()
            if one.upload is not None:
                with _refused_abort(storage):
                    abort_upload(storage, one.upload)
            elif one.kind != "attempts" and one.name not in OWN_LOCKS:
                storage.remove_file(one.name)
        return removed


@contextmanager
def _refused_abort(storage: Storage) -> Iterator[None]:
    """Report a store that does not let uploads be removed; ones that have ended meanwhile are no error."""
    try:
        yield
    except FileNotFoundError:
        pass
    except (OSError, NotImplementedError) as error:
        raise InputError(
            f"{storage.url} does not let unfinished uploads be removed ({first_line(error).rstrip('.')}); ask for the"
            " right to abort multipart uploads."
        ) from None


def _refuse_living(storage: Storage, held: Mapping[str, str]) -> None:
    """Raise an `InputError` if a lock is held, or if a driver on another machine, whose locks may not show, works."""
    living = (run.file.process for run in runs_of(storage, held) if run.alive)
    for holder in (*held.values(), *living):
        refuse(storage, holder)


def _leftovers(storage: Storage, failures: bool) -> list[Leftover]:
    if not storage.sizes(JOB_FOLDER):
        raise InputError(f"{storage.url} holds no job; give the output folder of a job, or of `train`.")
    sizes = storage.sizes()
    found = _in_folder(storage, sizes, failures)
    inner = open_storage(f"{storage.url}/{FIRST_PASS_FOLDER}")
    inner_sizes = inner.sizes()
    if inner_sizes:
        found += [
            Leftover(one.kind, f"{FIRST_PASS_FOLDER}/{one.name}", one.bytes)
            for one in _in_folder(inner, inner_sizes, failures)
        ]
    others = other_outputs(sizes)
    uploads = (upload for upload in listed_uploads(storage) if not upload.name.startswith(others))
    found += [Leftover("uploads", upload.name, upload=upload) for upload in uploads]
    return sorted(found, key=lambda one: (one.kind, one.name))


def _attempt_folder(name: str) -> str:
    """The folder of attempts, of a run of one name, that holds `name`."""
    before, _, inside = name.rpartition(f"{TEMPORARY}/")
    return f"{before}{TEMPORARY}/{inside.partition('/')[0]}"


def _refuse_links(storage: Storage) -> None:
    """Raise an `InputError` if attempts lie behind a link, since they may not be of this output."""
    if isinstance(storage, LocalStorage):
        for folder in (JOB_FOLDER, TEMPORARY):
            if (storage.path / folder).is_symlink():
                raise InputError(f"{storage.path / folder} is a link; remove it, and clean what it leads to by hand.")


def _in_folder(storage: Storage, sizes: dict[str, int], failures: bool) -> list[Leftover]:
    _refuse_links(storage)
    plan = load_plan(storage, {})
    planned = 0 if plan is None else len(plan.units)
    finished = UnitRecords() if plan is None else finished_units(storage, plan)
    stores_leases = not isinstance(storage, LocalStorage)

    def kind_of(name: str) -> LeftoverKind | None:
        if name.startswith(f"{FIRST_PASS_FOLDER}/"):
            return None  # see `find_leftovers`
        if name.startswith(f"{TEMPORARY}/"):
            return "attempts"
        if is_half_written(storage, name):
            return "half-written files"
        if name.startswith(f"{PROBES}/"):
            return "probes"
        if name.startswith(f"{LOCKS}/"):
            return "leases" if stores_leases else None
        if name.startswith(f"{FAILURES}/"):
            return "failures" if failures else None
        unit = unit_of_file(name)
        return "unfinished units" if unit is not None and unit < planned and unit not in finished else None

    kinds = ((kind_of(name), name) for name in own_names(sizes))
    found = [Leftover(kind, name, sizes[name]) for kind, name in kinds if kind is not None]
    if isinstance(storage, LocalStorage):
        # A worker may die before its first file.
        folders = (
            Path(place) for place, inside, files in os.walk(storage.path / TEMPORARY) if not inside and not files
        )
        found += [
            Leftover("attempts", folder.relative_to(storage.path).as_posix())
            for folder in folders
            if folder != storage.path / TEMPORARY
        ]
    return found
