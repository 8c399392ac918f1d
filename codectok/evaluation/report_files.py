"""Files of an evaluation: a JSON report, and a line of JSON per clip."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from codectok.atomic import replacing, write_text
from codectok.errors import InputError
from codectok.names import check_new_folder

from .reconstruction import ClipMeasures, EvaluationReport

REPORT_FILE, LINES_SUFFIX = "evaluation.json", ".jsonl"


class ReportFiles:
    """Paths of a report: the file `out` (.json) with a .jsonl file beside it, or files in the folder `out`.

    Attributes:
        report: the JSON report.
        clips: a line of JSON per clip.

    Raises:
        InputError: a file exists already, or `out` ends in .jsonl.
    """

    def __init__(self, out: Path) -> None:
        if out.suffix == LINES_SUFFIX:
            raise InputError(
                f"{out} is a name for the lines; pass the name of the report, {out.with_suffix('.json')}, or a folder."
            )
        if out.suffix != ".json":
            check_new_folder(out)
        self.report = out if out.suffix == ".json" else out / REPORT_FILE
        self.clips = self.report.with_suffix(LINES_SUFFIX)
        for path in (self.report, self.clips):
            if path.exists():
                raise InputError(f"{path} already exists; choose another name.")

    @contextmanager
    def writing(self) -> Iterator[ReportWriter]:
        """Open both files for writing; they appear together when the context ends without an error."""
        new_folders = [folder for folder in self.report.parents if not folder.exists()]
        try:
            with replacing(self.clips) as temporary, temporary.open("w", encoding="utf-8") as lines:
                writer = ReportWriter(lines)
                yield writer
                lines.flush()
                write_text(self.report, writer.text)
        except BaseException:
            with suppress(OSError):  # another process has put files there
                for folder in new_folders:
                    folder.rmdir()
            raise


class ReportWriter:
    """Writes clips one by one, and keeps the report until the end."""

    def __init__(self, lines: TextIO) -> None:
        self._lines = lines
        self.text = ""

    def add(self, clip: ClipMeasures) -> None:
        """Append a clip."""
        self._lines.write(clip.model_dump_json() + "\n")

    def finish(self, report: EvaluationReport) -> None:
        """Set the report, which is written at the end."""
        self.text = report.model_dump_json(indent=2) + "\n"
