"""Records of units, for tests that forge output."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from codectok.pipelines.engine.output.records import OutputFile


def update_record(folder: Path, path: Path) -> OutputFile:
    """Make the record of the first unit agree with one of its files."""
    data = path.read_bytes()
    name = path.relative_to(folder).as_posix()
    file = OutputFile(name=name, bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
    record_path = folder / "_codectok" / "records" / "000000.json"
    record = json.loads(record_path.read_text())
    record["files"] = [file.model_dump() if f["name"] == name else f for f in record["files"]]
    record_path.write_text(json.dumps(record))
    return file
