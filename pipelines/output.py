"""The output folder of a job: what was asked for, what is finished, and how files get into it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path

from codectok.atomic import write_text
from codectok.errors import InputError

from .job import FinishedUnit, Job, JobSummary, OutputFile, UnitResult
from .rejects import write_rejects
from .sources import Listing, Unit

JOB_FOLDER = "_codectok"
JOB_FILE = "job.json"
SUMMARY_FILE = "summary.json"
RECORDS = "records"
REJECTS_FOLDER = f"{JOB_FOLDER}/rejects"


class OutputFolder:
    """Takes in the files of units, each under a temporary name first; `_codectok/` holds everything about the job."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.job_folder = path / JOB_FOLDER
        self.temporary = self.job_folder / "tmp"
        self._made_here = False

    def finished_summary(self, job: Job, listing: Listing) -> JobSummary | None:
        """The summary of an earlier, finished run of the same job, or None where the folder is free.

        Raises:
            InputError: the folder holds anything else.
        """
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"{self.path} is a file; give a folder for the output.")
        if not self.path.is_dir() or not any(self.path.iterdir()):
            return None
        job_file, summary_file = self.job_folder / JOB_FILE, self.job_folder / SUMMARY_FILE
        if not job_file.is_file():
            raise InputError(f"{self.path} already exists and holds other files; choose another folder.")
        if not summary_file.is_file():
            raise InputError(f"{self.path} holds an unfinished job; delete it or choose another folder.")
        before, now = json.loads(job_file.read_bytes()), _description(job, listing)
        changed = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
        if changed:
            raise InputError(
                f"{self.path} holds the output of another job (different: {', '.join(changed)}); choose another folder."
            )
        return JobSummary(**json.loads(summary_file.read_bytes()))

    def begin(self, job: Job, listing: Listing) -> None:
        """Make the folder and note the job in it."""
        self._made_here = not self.path.exists()  # what was made here may be removed again
        self.temporary.mkdir(parents=True)
        _write_json(self.job_folder / JOB_FILE, _description(job, listing))

    def scratch(self, unit: Unit) -> Path:
        """The folder in which a worker makes the files of `unit`."""
        return self.temporary / f"{unit.number:06d}"

    def commit(self, unit: Unit, result: UnitResult, files: tuple[OutputFile, ...]) -> FinishedUnit:
        """Move the files of `unit` to their places and write its record; the record comes last."""
        scratch = self.scratch(unit)
        for file in files:
            target = self.path / file.name
            target.parent.mkdir(parents=True, exist_ok=True)
            (scratch / file.name).rename(target)
        if result.rejects:
            rejects = self.path / REJECTS_FOLDER / f"{unit.number:06d}.parquet"
            rejects.parent.mkdir(exist_ok=True)
            write_rejects(rejects, result.rejects)
        shutil.rmtree(scratch)
        record = {
            "unit": unit.number,
            "rows": result.rows,
            "seconds": result.seconds,
            "codes": result.codes,
            "rejects": len(result.rejects),
            "files": [asdict(file) for file in files],
        }
        _write_json(self.job_folder / RECORDS / f"{unit.number:06d}.json", record)
        return FinishedUnit(unit, result, files)

    def end(self, summary: JobSummary) -> None:
        """Mark the job as finished."""
        self.temporary.rmdir()
        _write_json(self.job_folder / SUMMARY_FILE, asdict(summary))

    def abandon(self) -> None:
        """Remove the files of units that were not finished, and the folder itself where no unit was."""
        shutil.rmtree(self.temporary, ignore_errors=True)
        if not (self.job_folder / RECORDS).exists():
            shutil.rmtree(self.job_folder, ignore_errors=True)
            if self._made_here:
                shutil.rmtree(self.path, ignore_errors=True)


def run_in_scratch(job: Job, unit: Unit, scratch: Path) -> tuple[UnitResult, tuple[OutputFile, ...]]:
    """Let `job` make the files of `unit` in `scratch`, on disk for good when this returns."""
    scratch.mkdir(parents=True)
    result = job.run(unit, scratch)
    paths = sorted(path for path in scratch.rglob("*") if path.is_file())
    return result, tuple(_sealed(path, scratch) for path in paths)


def unit_hash(job: Job, unit: Unit) -> str:
    """Changes with everything that decides the bytes of a unit."""
    sources = [(source.dataset, source.path, source.size) for source in unit.sources]
    text = json.dumps([job.verb, dict(job.options()), sources], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _sealed(path: Path, scratch: Path) -> OutputFile:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        os.fsync(file.fileno())
    return OutputFile(path.relative_to(scratch).as_posix(), path.stat().st_size, digest)


def _description(job: Job, listing: Listing) -> dict[str, object]:
    return {"format": "codectok.job", "version": 1, "verb": job.verb, "sources": listing.hash, **job.options()}


def _write_json(path: Path, value: object) -> None:
    write_text(path, json.dumps(value, indent=2) + "\n")
