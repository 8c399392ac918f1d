"""Sessions of listeners: each rating is stored at once, so that a session survives any restart."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import Any

from pydantic import TypeAdapter, ValidationError

from codectok.errors import InputError
from codectok.names import HASH_MARK, hash_of_name, readable_name

from .order import pages_of, stimuli_of
from .ratings import LONGEST_NAME, Completion, Line, ListenerName, Rating, RatingsFile, Start
from .stored_test import RATINGS_FOLDER, ListeningTest, Page

MOST_LISTENERS = 2000
MOST_LINES = 50_000  # of one listener
_NAME: TypeAdapter[str] = TypeAdapter(ListenerName)


class ConflictError(InputError):
    """A request that does not fit the state of the session."""


@dataclass
class Session:
    """All that one listener has done.

    Attributes:
        listener: name as it was entered first.
        ratings: the last rating of each page, stimulus and scale.
        listened: seconds for which each stimulus of a page was played.
        completed: ids of pages that the listener has left.
        lines: number of lines in the file.
    """

    listener: str
    ratings: dict[tuple[str, str, str], Rating] = field(default_factory=dict)
    listened: dict[tuple[str, str], float] = field(default_factory=dict)
    completed: set[str] = field(default_factory=set)
    lines: int = 0

    def apply(self, line: Line) -> None:
        """Take over a line of the file."""
        self.lines += 1
        if isinstance(line, Rating):
            self.ratings[line.page, line.stimulus, line.scale] = line
            self._listen(line.page, line.stimulus, line.listened)
        elif isinstance(line, Completion):
            self.completed.add(line.completed)
            for stimulus, seconds in line.listened.items():
                self._listen(line.completed, stimulus, seconds)

    def _listen(self, page: str, stimulus: str, seconds: float) -> None:
        key = page, stimulus
        self.listened[key] = max(self.listened.get(key, 0.0), seconds)


class Sessions:
    """The sessions of a test, in a folder with one file for each listener; safe to use from several threads.

    Attributes:
        test: the test.

    Args:
        folder: of the test.
        test: the test.
        now: returns the time, for tests.

    Raises:
        InputError: a file is damaged.
    """

    def __init__(
        self, folder: Path, test: ListeningTest, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self.test, self._now = test, now
        self._folder = folder / RATINGS_FOLDER
        self._folder.mkdir(exist_ok=True)
        self._lock = Lock()
        self._sessions: dict[str, Session] = {}
        for path in sorted(self._folder.glob("*.jsonl")):
            session = _load(path)
            if session is not None:
                self._sessions[_key(session.listener)] = session

    def all(self) -> list[Session]:
        """Return the sessions, sorted by listener."""
        with self._lock:
            return [self._sessions[key] for key in sorted(self._sessions)]

    def open(self, name: object) -> dict[str, Any]:
        """Start or continue the session of a listener, and return its state.

        Raises:
            InputError: the name cannot be used, or there are too many listeners.
        """
        name = check_name(name)
        with self._lock:
            key = _key(name)
            if key not in self._sessions:
                if len(self._sessions) >= MOST_LISTENERS:
                    raise InputError(f"The test has {MOST_LISTENERS:,} listeners already.")
                session = Session(name)
                self._store(session, Start(listener=name, time=self._time()))
                self._sessions[key] = session
            return self._state(self._sessions[key])

    def rate(self, name: object, page: str, stimulus: str, scale: str, value: int, listened: float) -> None:
        """Store a rating.

        Raises:
            InputError: there is no such listener, page, stimulus or scale, or the value is not on the scale.
            ConflictError: the page is complete.
        """
        with self._lock:
            session = self._session(name)
            found = self._current_page(session, page)
            known = next((one for one in found.scales if one.name == scale), None)
            if stimulus not in found.clip.stimuli.values() or known is None:
                raise InputError(f"Page {page} has no stimulus {stimulus} with the scale {scale}.")
            if not known.holds(value):
                raise InputError(f"{value} is not on the scale {scale}, from {known.lowest} to {known.highest}.")
            rating = Rating(
                page=page, stimulus=stimulus, scale=scale, value=value, listened=listened, time=self._time()
            )
            self._store(session, rating)

    def complete(self, name: object, page: str, listened: Mapping[str, float]) -> dict[str, Any]:
        """Leave a page, and return the state with the next one.

        Raises:
            InputError: there is no such listener or page, or `listened` names another stimulus.
            ConflictError: a rating is missing.
        """
        with self._lock:
            session = self._session(name)
            if page in session.completed:  # the answer to the first request was lost
                return self._state(session)
            found = self._current_page(session, page)
            stimuli = found.clip.stimuli.values()
            if not set(listened) <= {*stimuli, found.clip.labelled}:
                raise InputError(f"Page {page} has other stimuli.")
            missing = [
                (stimulus, scale)
                for stimulus in stimuli
                for scale in found.scales
                if (page, stimulus, scale.name) not in session.ratings
            ]
            if missing:
                raise ConflictError(f"{len(missing)} ratings of this page are missing.")
            self._store(session, Completion(completed=page, listened=dict(listened), time=self._time()))
            return self._state(session)

    def _session(self, name: object) -> Session:
        session = self._sessions.get(_key(check_name(name)))
        if session is None:
            raise InputError("There is no listener of this name; start the test first.")
        return session

    def _current_page(self, session: Session, page: str) -> Page:
        if page not in self.test.pages:
            raise InputError(f"There is no page {page}.")
        if page in session.completed:
            raise ConflictError(f"Page {page} is complete.")
        return self.test.pages[page]

    def _store(self, session: Session, line: Line) -> None:
        if session.lines >= MOST_LINES:
            raise InputError(f"The listener {session.listener} has {MOST_LINES:,} entries already.")
        RatingsFile(self._folder / file_name(session.listener)).append([line])
        session.apply(line)

    def _time(self) -> str:
        return self._now().isoformat(timespec="milliseconds")

    def _state(self, session: Session) -> dict[str, Any]:
        key = _key(session.listener)
        pages = pages_of(self.test, key)
        current = next((page for page in pages if page.id not in session.completed), None)
        return {
            "test": self.test.id,
            "listener": session.listener,
            "sample_rate": self.test.sample_rate,
            "pages": len(pages),
            "completed": len(session.completed),
            "page": None if current is None else self._shown(session, key, current),
        }

    def _shown(self, session: Session, key: str, page: Page) -> dict[str, Any]:
        """A page as its listener may see it: without names of systems."""
        stimuli = stimuli_of(self.test, key, page)

        def ratings(stimulus: str) -> Iterator[tuple[str, int]]:
            for scale in page.scales:
                found = session.ratings.get((page.id, stimulus, scale.name))
                if found is not None:
                    yield scale.name, found.value

        listened = {stimulus: session.listened.get((page.id, stimulus), 0.0) for stimulus in stimuli}
        labelled = page.clip.labelled if page.kind == "mushra" else None
        return {
            "id": page.id,
            "kind": page.kind,
            "seconds": page.clip.seconds,
            "labelled": labelled,
            "scales": [vars(scale) for scale in page.scales],
            "stimuli": [
                {"id": stimulus, "ratings": dict(ratings(stimulus)), "listened": listened[stimulus]}
                for stimulus in stimuli
            ],
        }


def check_name(name: object) -> str:
    """Return the name of a listener without spaces at its ends.

    Raises:
        InputError: it is empty, too long, or has characters that cannot be printed.
    """
    try:
        checked = _NAME.validate_python(name)
    except ValidationError:
        checked = ""
    if not checked or not checked.isprintable():
        raise InputError(f"A name or code has 1 to {LONGEST_NAME} printable characters.")
    return unicodedata.normalize("NFC", checked)


def file_name(listener: str) -> str:
    """Return the name of a listener's file."""
    key = _key(listener)
    return f"{readable_name(key)}{HASH_MARK}{hash_of_name(key):016x}.jsonl"


def _key(listener: str) -> str:
    """Letter case and Unicode forms do not make another listener."""
    return unicodedata.normalize("NFKC", listener).casefold()


def _load(path: Path) -> Session | None:
    """Read a session; None if a crash has cut off its first line."""
    lines = RatingsFile(path).read()
    first = next(lines, None)
    if first is None:
        return None
    if not isinstance(first, Start):
        raise InputError(f"Line 1 of {path} does not name the listener; move the file away.")
    session = Session(first.listener)
    session.apply(first)
    for line in lines:
        session.apply(line)
    return session
