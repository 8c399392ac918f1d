"""Files of an evaluation: a JSON report, and a line of JSON per clip."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from codectok.atomic import leftovers, remove_leftovers, replacing, replacing_folder, write_text
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
        self._folder = None if out.suffix == ".json" else out
        if self._folder is not None:
            check_new_folder(self._folder)
        self.report = out if self._folder is None else out / REPORT_FILE
        self.clips = self.report.with_suffix(LINES_SUFFIX)
        for path in (self.clips, self.report):
            if path.exists() and not self._is_half_written(path):
                raise InputError(f"{path} already exists; choose another name.")

    @contextmanager
    def writing(self) -> Iterator[ReportWriter]:
        """Open both files for writing; they appear together when the context ends without an error."""
        new_folders = [folder for folder in self.report.parents if not folder.exists()]
        try:
            with self._writing_folder(self._folder) if self._folder is not None else self._writing_files() as writer:
                yield writer
        except BaseException:
            with suppress(OSError):  # another process has put files there
                for folder in new_folders:
                    if folder.exists():
                        folder.rmdir()
            raise

    def _is_half_written(self, path: Path) -> bool:
        """True for a report without lines beside temporary lines: its process was killed between the two."""
        return path == self.report and not self.clips.exists() and bool(leftovers(self.clips))

    @contextmanager
    def _writing_folder(self, folder: Path) -> Iterator[ReportWriter]:
        with replacing_folder(folder) as temporary:
            with (temporary / self.clips.name).open("w", encoding="utf-8") as lines:
                writer = ReportWriter(lines)
                yield writer
            (temporary / self.report.name).write_text(writer.text, encoding="utf-8")

    @contextmanager
    def _writing_files(self) -> Iterator[ReportWriter]:
        if self.report.exists() and self._is_half_written(self.report):
            # Half written: the report goes before the temporary lines by which the next command would know it.
            self.report.unlink()
        remove_leftovers(self.report)
        remove_leftovers(self.clips)
        with replacing(self.clips) as temporary, temporary.open("w", encoding="utf-8") as lines:
            writer = ReportWriter(lines)
            yield writer
            lines.flush()
            write_text(self.report, writer.text)


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
