"""Names of the files that a unit writes: its part or shard, and the files about it in the job's folder."""

from __future__ import annotations

import re
from collections.abc import Iterable

from codectok.names import JOB_FOLDER
from codectok.shards import INDEX_FOLDER
from codectok.sources.rejects import REJECTS_FOLDER

PART_PREFIX, SHARD_PREFIX, AUDIO_PREFIX = "part-", "shard-", "audio-"
# Start of the folder that holds the parts of an output of several lengths.
LENGTH_PREFIX = "length-"
RECORDS = f"{JOB_FOLDER}/records"
FAILURES = f"{JOB_FOLDER}/failures"
CODE_COUNTS = f"{JOB_FOLDER}/codes"
# Rows of an evaluation, before they are joined, and the audio of its examples.
CLIPS, EXAMPLES = f"{JOB_FOLDER}/clips", f"{JOB_FOLDER}/examples"
# Folders with a file about each part or shard; `verify` expects no other files in them.
SIDE_FOLDERS = (INDEX_FOLDER, REJECTS_FOLDER, CODE_COUNTS, CLIPS, EXAMPLES)

_STARTS = (
    SHARD_PREFIX,
    AUDIO_PREFIX,
    f"{INDEX_FOLDER}/{SHARD_PREFIX}",
    *(f"{folder}/" for folder in (RECORDS, REJECTS_FOLDER, FAILURES, CODE_COUNTS, CLIPS, EXAMPLES)),
)
# A file of a unit, also in the folder of a length, or a file in a folder of a unit.
_UNIT_FILE = re.compile(
    rf"(?:(?:{LENGTH_PREFIX}\d+/)?{PART_PREFIX}|{'|'.join(map(re.escape, _STARTS))})"
    r"(\d{6,})(?:_\w+)?(?:\.\w+|/[^/]+)?"
)


def part_name(unit: int, suffix: str = ".parquet") -> str:
    """Name of a unit's part: `part-NNNNNN` and `suffix`."""
    return f"{PART_PREFIX}{unit:06d}{suffix}"


def length_folder(length: int) -> str:
    """Name of the folder with the parts of a length."""
    return f"{LENGTH_PREFIX}{length}"


def shard_name(unit: int) -> str:
    """Name of a unit's tar."""
    return f"{SHARD_PREFIX}{unit:06d}.tar"


def record_name(unit: int) -> str:
    """Name of a unit's record."""
    return f"{RECORDS}/{unit:06d}.json"


def failure_name(unit: int) -> str:
    """Name of the file with the details of a unit's failure."""
    return f"{FAILURES}/{unit:06d}.txt"


def rejects_name(unit: int) -> str:
    """Name of the file with a unit's rejects."""
    return f"{REJECTS_FOLDER}/{unit:06d}.parquet"


def code_counts_name(unit: int) -> str:
    """Name of the file that counts the codes of a unit's part."""
    return f"{CODE_COUNTS}/{unit:06d}.parquet"


def unit_of_part(name: str) -> int:
    """Number of the unit of a part file."""
    return int(name.removeprefix(PART_PREFIX).partition(".")[0])


def parts_in_order(names: Iterable[str]) -> list[str]:
    """Return those of `names` that are part files, in the order of units."""
    return sorted((name for name in names if name.startswith(PART_PREFIX)), key=unit_of_part)


def unit_of_file(name: str) -> int | None:
    """Number of the unit that `name` belongs to; None for files of no unit."""
    found = _UNIT_FILE.fullmatch(name)
    return int(found[1]) if found else None
