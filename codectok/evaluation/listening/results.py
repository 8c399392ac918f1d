"""Results of a listening test: a row for each rating, as Parquet, and a page with means."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from codectok.atomic import replacing, write_text

from .results_page import results_page
from .rows import RatingRow
from .scales import SCALE_ORDER
from .sessions import Session, Sessions
from .stored_test import ListeningTest

PARQUET_FILE, PAGE_FILE = "results.parquet", "results.html"


@dataclass(frozen=True)
class Results:
    """The ratings of a test, and its page.

    Attributes:
        rows: sorted by listener, page, clip, system and scale.
        page: HTML.
        listeners: number of listeners who have rated.
    """

    rows: tuple[RatingRow, ...]
    page: str
    listeners: int


def collect_results(test: ListeningTest, sessions: Sessions) -> Results:
    """Collect all ratings."""
    rows = rating_rows(test, sessions.all())
    return Results(rows, results_page(test, rows), len({row.listener for row in rows}))


def write_results(folder: Path, results: Results) -> None:
    """Write `results.parquet` and `results.html`, each completely or not at all."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema(
        [
            ("listener", pa.string()),
            ("trial", pa.string()),
            ("clip", pa.string()),
            ("source", pa.string()),
            ("system", pa.string()),
            ("scale", pa.string()),
            ("value", pa.int32()),
            ("seconds_listened", pa.float64()),
            ("complete", pa.bool_()),
            ("time", pa.string()),
        ]
    )
    table = pa.Table.from_pylist([asdict(row) for row in results.rows], schema=schema)
    with replacing(folder / PARQUET_FILE) as temporary:
        pq.write_table(table, temporary)
    write_text(folder / PAGE_FILE, results.page)


def rating_rows(test: ListeningTest, sessions: Iterable[Session]) -> tuple[RatingRow, ...]:
    """Return a row for each stimulus and scale that a listener has rated."""
    return tuple(row for session in sessions for row in _rows_of(test, session))


def _rows_of(test: ListeningTest, session: Session) -> Sequence[RatingRow]:
    rows = []
    for page in test.pages.values():
        for system in test.systems:
            stimulus = page.clip.stimuli[system.name]
            for scale in SCALE_ORDER:
                rating = session.ratings.get((page.id, stimulus, scale))
                if rating is None:
                    continue
                rows.append(
                    RatingRow(
                        listener=session.listener,
                        trial=page.id,
                        clip=page.clip.clip,
                        source=page.clip.source,
                        system=system.name,
                        scale=scale,
                        value=rating.value,
                        seconds_listened=session.listened.get((page.id, stimulus), 0.0),
                        complete=page.id in session.completed,
                        time=rating.time,
                    )
                )
    return rows
