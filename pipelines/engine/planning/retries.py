"""Units whose rejects may have passed: files that were changed or out of reach, and are as planned again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from codectok.errors import PASSING_REASONS, AudioError
from codectok.parquet_damage import PARQUET_DAMAGE
from codectok.pipelines.engine.output.records import Counts, UnitRecord
from codectok.pipelines.engine.output.unit_files import rejects_name
from codectok.sources.opening import open_source
from codectok.sources.rejects import is_within, name_in_rejects, parse_rejects
from codectok.sources.source import Source
from codectok.storage import Storage

from .plan import Plan

NEW_TIMES_CHECKED = 100


def passing_rejects(counts: Counts) -> int:
    """Number of rejected inputs that may be usable later."""
    return sum(count for reason, count in counts.rejects.items() if reason in PASSING_REASONS)


def units_to_try_again(storage: Storage, plan: Plan, records: Mapping[int, UnitRecord]) -> set[int]:
    """Finished units with rejects for passing reasons of which one at least can be read now."""
    candidates = (number for number, record in records.items() if passing_rejects(record.total))
    return {number for number in candidates if _has_passed(storage, plan, number)}


def have_new_times(plan: Plan, units: Iterable[int]) -> bool:
    """True if files of `units` have other times than in the plan; looks at a file of each of the first units."""
    for number in list(units)[:NEW_TIMES_CHECKED]:
        source = next((one for one in plan.unit(number).sources if one.url is None and one.modified is not None), None)
        if source is not None and _has_new_time(source):
            return True
    return False


def _has_new_time(source: Source) -> bool:
    try:
        return source.location.stat().st_mtime_ns != source.modified
    except OSError:
        return False  # its unit tells


def _has_passed(storage: Storage, plan: Plan, number: int) -> bool:
    try:
        rejects = list(parse_rejects(storage.read(rejects_name(number))))
    except (FileNotFoundError, *PARQUET_DAMAGE):
        return True  # the unit is damaged
    names = {(reject.dataset, reject.source) for reject in rejects if reject.reason in PASSING_REASONS}
    sources = [source for source in plan.unit(number).sources if _is_named(source, names)]
    return not sources or any(map(_can_be_read, sources))


def _is_named(source: Source, names: set[tuple[str, str]]) -> bool:
    """True if `names` holds the source, or a sample or row of it."""
    if (source.dataset, name_in_rejects(source.name)) in names:
        return True
    return any(dataset == source.dataset and is_within(name, source.name) for dataset, name in names)


def _can_be_read(source: Source) -> bool:
    try:
        with open_source(source) as file:
            file.read(1)
    except AudioError as error:
        return error.reason not in PASSING_REASONS
    except Exception:  # each client of a store has its own errors
        return False
    return True
