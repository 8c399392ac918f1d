"""Checking that the output of a job is whole and is what it says it is."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from codectok.errors import InputError, VerificationError
from codectok.exports.dataset_card import CARD_FILE
from codectok.pipelines.engine.job import OutputFile, Tally, UnitRecord
from codectok.pipelines.engine.output import finished_units
from codectok.pipelines.engine.plan import Plan, load_plan
from codectok.pipelines.export.documents import DATA_PATHS_FILE
from codectok.pipelines.export.verify import CHECKS
from codectok.pipelines.export.verify_compact import CompactVerifier
from codectok.pipelines.shard.verify import shard_checks
from codectok.pipelines.tokenize.job import CODE_COUNTS
from codectok.pipelines.tokenize.verify import TableVerifier, Verified, bare_parts, verify_bare_table
from codectok.shards import (
    INDEX_FOLDER,
    MANIFEST_FILE,
)
from codectok.sources.listing import JOB_FOLDER
from codectok.sources.rejects import REJECTS_FOLDER
from codectok.storage import Storage

from .rejects import verified_rejects

TABLE_VERIFIERS: Mapping[str, Callable[[Storage, Plan], TableVerifier | CompactVerifier]] = {
    "tokenize": TableVerifier,
    "export compact": CompactVerifier,
}


def verify_output(storage: Storage, on_file: Callable[[], None] = lambda: None) -> Verified:
    """Check everything in an output folder against plan, records and itself; `on_file` is called for each file done.

    A token table without a plan, such as a copy of its Parquet files alone, is checked against itself.

    Raises:
        InputError: there is neither a job's output nor a token table.
        VerificationError: something is missing, too much, or wrong; the first place in the order of the files.
    """
    plan = load_plan(storage, {})
    if plan is None:
        parts = bare_parts(storage)
        if not parts:
            raise InputError(
                f"{storage.url} holds no output of a job and no token table; give a folder that `shard`, `tokenize` or"
                " `export` has written."
            )
        return verify_bare_table(storage, parts, on_file)
    records = _verified_records(storage, plan)
    files = [file for record in records for file in record.files]
    for record in records:
        verified_rejects(storage, record)
    _refuse_orphans(storage, files)
    checks: dict[str, list[Callable[[], None]]] = {file.name: [_hash_check(storage, file)] for file in files}
    further: Mapping[str, Callable[[], None]] = {}
    verifier = TABLE_VERIFIERS.get(plan.header.verb)
    table = verifier(storage, plan) if verifier is not None else None
    if plan.header.verb == "shard":
        further = shard_checks(storage, plan, records)
    elif table is not None:
        further = {name: table.check_of(record, name) for record in records for name in _parts(record)}
    elif plan.header.verb in CHECKS:
        check_export = partial(CHECKS[plan.header.verb], storage)
        further = {name: partial(check_export, name, record) for record in records for name in _parts(record)}
    for name, check in further.items():
        checks[name].append(check)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        pending = [pool.submit(_run_all, checks[name]) for name in sorted(checks)]
        try:
            for future in pending:
                future.result()
                on_file()
        finally:
            for future in pending:
                future.cancel()
    if table is not None:
        table.finish(records)
    total = Tally.sum(record.total for record in records)
    return Verified(
        units=len(records),
        files=len(files),
        bytes=sum(file.bytes for file in files),
        rows=total.rows,
        seconds=total.seconds,
    )


def count_files(storage: Storage) -> int:
    """How many files `verify_output` will look at, roughly."""
    return sum(not name.startswith(f"{JOB_FOLDER}/") for name in storage.sizes())


def _run_all(checks: Sequence[Callable[[], None]]) -> None:
    for check in checks:
        check()


def _parts(record: UnitRecord) -> list[str]:
    return [file.name for file in record.files if not file.name.startswith(f"{JOB_FOLDER}/")]


def _verified_records(storage: Storage, plan: Plan) -> list[UnitRecord]:
    records = finished_units(storage, plan)
    missing = [unit.number for unit in plan.units if unit.number not in records]
    if missing:
        raise VerificationError(
            f"{len(missing)} of {len(plan.units)} units are not complete, the first {missing[0]};"
            " run the same command again to make them."
        )
    return [records[number] for number in sorted(records)]


def _refuse_orphans(storage: Storage, files: list[OutputFile]) -> None:
    known = {file.name for file in files} | {MANIFEST_FILE, DATA_PATHS_FILE, CARD_FILE}
    for name in storage.sizes():
        of_units = not name.startswith(f"{JOB_FOLDER}/") or name.startswith(
            (f"{INDEX_FOLDER}/", f"{REJECTS_FOLDER}/", f"{CODE_COUNTS}/")
        )
        if of_units and name not in known:
            raise VerificationError(f"{storage.url}/{name} belongs to no unit of the job; move it elsewhere.")


def _hash_check(storage: Storage, file: OutputFile) -> Callable[[], None]:
    def check() -> None:
        with storage.open(file.name) as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()  # type: ignore[arg-type]  # it has readinto
        if digest != file.sha256:
            raise VerificationError(f"{storage.url}/{file.name} has changed: its hash is not the recorded one.")

    return check
