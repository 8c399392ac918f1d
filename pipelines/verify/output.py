"""Verification of a job's output: records, hashes, rejects, and the contents of files."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from codectok.errors import InputError, VerificationError, damage_errors
from codectok.exports.dataset_card import CARD_FILE
from codectok.names import JOB_FOLDER
from codectok.pipelines.engine.output.folder import finished_units
from codectok.pipelines.engine.output.records import Counts, OutputFile, UnitRecord
from codectok.pipelines.engine.output.summary import described_files
from codectok.pipelines.engine.output.unit_files import SIDE_FOLDERS
from codectok.pipelines.engine.output.verify_rejects import verified_rejects
from codectok.pipelines.engine.planning.plan import Plan, load_plan
from codectok.pipelines.engine.verifier import OutputVerifier, Verified
from codectok.pipelines.tokenize.verify import bare_parts, verify_bare_table
from codectok.storage import Storage, open_storage

from .verifiers import verifier_of

REMEDY = "run its job again into another folder"


def verify_output(
    output: str | Path | Storage,
    on_file: Callable[[], None] = lambda: None,
    verifier: type[OutputVerifier] | None = None,
) -> Verified:
    """Check an output folder against its plan and records, and the contents of its files.

    A token table without a plan, such as a copy of its Parquet files alone, is checked by itself.

    Args:
        output: folder or URL of the output, or its storage.
        on_file: called for each file that was checked.
        verifier: checks contents; None for the verifier of the job, if it is one of codectok's.

    Raises:
        InputError: the folder holds neither a job's output nor a token table.
        VerificationError: a file is missing, unexpected or wrong; names the first one in the order of the files.
    """
    storage = output if isinstance(output, Storage) else open_storage(output)
    plan = load_plan(storage, {})
    if plan is None:
        parts = bare_parts(storage)
        if not parts:
            raise InputError(
                f"{storage.url} holds no output of a job and no token table; give a folder that `shard`, `tokenize` or"
                " `export` has written."
            )
        return verify_bare_table(storage, parts, on_file)
    verb = plan.header.verb
    verifier = verifier or verifier_of(verb)
    records = complete_records(storage, plan)
    for record in records:
        verified_rejects(storage, record)
    _refuse_orphans(storage, records, verifier)
    contents = None if verifier is None else _prepared(verifier, storage, plan, records)
    checks = {file.name: _file_check(storage, record, file, contents) for record in records for file in record.files}
    _run_all([checks[name] for name in sorted(checks)], on_file)
    if contents is not None:
        with damage_errors(storage.url, REMEDY, VerificationError):
            contents.finish()
    total = Counts.sum(record.total for record in records)
    return Verified(
        units=len(records),
        files=len(checks),
        bytes=sum(file.bytes for record in records for file in record.files),
        rows=total.rows,
        seconds=total.seconds,
        verb=verb,
        contents=contents is not None,
    )


def count_files(storage: Storage) -> int:
    """Approximate number of files that `verify_output` checks."""
    return sum(not name.startswith(f"{JOB_FOLDER}/") for name in storage.sizes())


def complete_records(storage: Storage, plan: Plan) -> list[UnitRecord]:
    """Return the records of all units in order; raises a `VerificationError` if one is missing."""
    records = finished_units(storage, plan)
    missing = [number for number in range(len(plan.units)) if number not in records]
    if missing:
        raise VerificationError(
            f"{len(missing)} of {len(plan.units)} units are not complete, the first {missing[0]};"
            " run the same command again to make them."
        )
    return list(records.values())


def _refuse_orphans(storage: Storage, records: Sequence[UnitRecord], verifier: type[OutputVerifier] | None) -> None:
    """Raise an error for a file that belongs to no unit and does not describe the whole output."""
    known = {file.name for record in records for file in record.files} | {CARD_FILE}
    known.update(described_files(storage) if verifier is None else verifier.files_about_the_whole(storage))
    for name in storage.sizes():
        expected = not name.startswith(f"{JOB_FOLDER}/") or name.startswith(
            tuple(f"{folder}/" for folder in SIDE_FOLDERS)
        )
        if expected and name not in known:
            raise VerificationError(f"{storage.url}/{name} belongs to no unit of the job; move it elsewhere.")


def _file_check(
    storage: Storage, record: UnitRecord, file: OutputFile, contents: OutputVerifier | None
) -> Callable[[], None]:
    def check() -> None:
        _check_hash(storage, file)
        if contents is not None and not file.name.startswith(f"{JOB_FOLDER}/"):
            with damage_errors(f"{storage.url}/{file.name}", REMEDY, VerificationError):
                contents.check(record, file.name)

    return check


def _prepared(
    verifier: type[OutputVerifier], storage: Storage, plan: Plan, records: Sequence[UnitRecord]
) -> OutputVerifier:
    with damage_errors(storage.url, REMEDY, VerificationError):
        return verifier(storage, plan, records)


def _check_hash(storage: Storage, file: OutputFile) -> None:
    with storage.open(file.name) as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()  # type: ignore[arg-type]  # it has readinto
    if digest != file.sha256:
        raise VerificationError(f"{storage.url}/{file.name} has changed: its hash is not the recorded one.")


def _run_all(checks: Iterable[Callable[[], None]], on_file: Callable[[], None]) -> None:
    """Run checks in threads; the first error in their order is raised."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        pending = [pool.submit(check) for check in checks]
        try:
            for future in pending:
                future.result()
                on_file()
        finally:
            for future in pending:
                future.cancel()
