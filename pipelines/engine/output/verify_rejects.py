"""Check of the rejects of a unit."""

from __future__ import annotations

from collections import Counter

from codectok.errors import VerificationError, damage_errors, shortened
from codectok.sources.rejects import Reject, parse_rejects
from codectok.storage import Storage

from .records import UnitRecord
from .unit_files import rejects_name


def verified_rejects(storage: Storage, record: UnitRecord) -> list[Reject]:
    """Read the rejects of a unit; raises a `VerificationError` if they are not the ones that its record counts."""
    name = rejects_name(record.unit)
    expected = record.total.rejects
    if not expected:
        return []
    try:
        data = storage.read(name)
        with damage_errors(name, "run the job again into another folder", VerificationError):
            rejects = list(parse_rejects(data))
    except (FileNotFoundError, VerificationError) as error:
        reason = shortened(error)
        raise VerificationError(f"The rejects {storage.url}/{name} are missing or damaged: {reason}.") from None
    found = Counter(reject.reason for reject in rejects)
    if dict(found) != expected:
        raise VerificationError(
            f"The rejects {storage.url}/{name} do not agree with their record: {dict(found)}, not {expected}."
        )
    return rejects
