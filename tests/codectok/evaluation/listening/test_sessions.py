"""Sessions survive restarts and crashes; orders depend on the seed and the listener alone."""

from __future__ import annotations

import json
import resource
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from codectok.errors import InputError
from codectok.evaluation.listening.order import pages_of, stimuli_of
from codectok.evaluation.listening.sessions import ConflictError, Sessions, file_name
from codectok.evaluation.listening.stored_test import ListeningTest
from tests.helpers.listening import SYSTEMS, rate_page, write_listening_test

VALUES = {"reference": 5, "anchor": 1, "ours": 3, "theirs": 4}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "test"


@pytest.fixture
def test(folder: Path) -> ListeningTest:
    return write_listening_test(folder, "both", clips=3)


def rating_of(state: dict[str, Any]) -> dict[str, dict[str, int]]:
    return {shown["id"]: shown["ratings"] for shown in state["page"]["stimuli"]}


def test_session_survives_restart(folder: Path, test: ListeningTest) -> None:
    sessions = Sessions(folder, test)
    state = sessions.open("Ann")
    state = rate_page(sessions, "Ann", state, VALUES)
    stimulus = state["page"]["stimuli"][2]["id"]
    sessions.rate("Ann", state["page"]["id"], stimulus, "speech_clarity", 2, 0.5)
    sessions.rate("Ann", state["page"]["id"], stimulus, "speech_clarity", 4, 2.5)
    continued = Sessions(folder, test).open("  ann ")
    assert continued["completed"] == 1
    assert continued["page"]["id"] == state["page"]["id"]
    assert [shown["id"] for shown in continued["page"]["stimuli"]] == [one["id"] for one in state["page"]["stimuli"]]
    assert rating_of(continued)[stimulus] == {"speech_clarity": 4}
    assert continued["page"]["stimuli"][2]["listened"] == 2.5
    assert continued["listener"] == "Ann"


def rated_once(folder: Path, test: ListeningTest) -> tuple[Sessions, str, str]:
    """Let Ann rate a stimulus; return the sessions, her page and the stimulus."""
    sessions = Sessions(folder, test)
    state = sessions.open("Ann")
    page, stimulus = state["page"]["id"], state["page"]["stimuli"][0]["id"]
    sessions.rate("Ann", page, stimulus, "speech_clarity", 2, 0.5)
    return sessions, page, stimulus


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Limit the size of files that this process writes, also of its output."""
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_full_disk_leaves_whole_lines(folder: Path, test: ListeningTest) -> None:
    sessions, page, stimulus = rated_once(folder, test)
    path = folder / "ratings" / file_name("Ann")
    whole = path.read_bytes()
    with largest_file(len(whole) + 30), pytest.raises(OSError, match="File too large"):
        sessions.rate("Ann", page, stimulus, "speech_clarity", 4, 2.5)
    assert path.read_bytes() == whole
    assert rating_of(Sessions(folder, test).open("Ann"))[stimulus] == {"speech_clarity": 2}


@pytest.mark.parametrize("torn", ['{"page": "0-cla', "\x00\x00\x00"])
def test_line_cut_off_by_crash_is_replaced(folder: Path, test: ListeningTest, torn: str) -> None:
    sessions, page, stimulus = rated_once(folder, test)
    path = folder / "ratings" / file_name("Ann")
    whole = path.read_text()
    path.write_text(whole + torn)
    sessions = Sessions(folder, test)
    assert rating_of(sessions.open("Ann"))[stimulus] == {"speech_clarity": 2}
    sessions.rate("Ann", page, stimulus, "background_clarity", 3, 0.5)
    assert path.read_text().startswith(whole + '{"page"')
    assert rating_of(Sessions(folder, test).open("Ann"))[stimulus] == {"speech_clarity": 2, "background_clarity": 3}


def test_damaged_line_names_file_and_line(folder: Path, test: ListeningTest) -> None:
    Sessions(folder, test).open("Ann")
    path = folder / "ratings" / file_name("Ann")
    path.write_text(path.read_text() + "damage\n" + path.read_text())
    with pytest.raises(InputError, match=r"Line 2 of .*ann.*\.jsonl"):
        Sessions(folder, test)


def test_every_rating_is_on_disk_before_its_answer(folder: Path, test: ListeningTest) -> None:
    sessions = Sessions(folder, test)
    state = sessions.open("Ann")
    stimulus = state["page"]["stimuli"][0]["id"]
    for value in range(1, 6):
        sessions.rate("Ann", state["page"]["id"], stimulus, "speech_clarity", value, 0.0)
        lines = (folder / "ratings" / file_name("Ann")).read_text().splitlines()
        assert json.loads(lines[-1])["value"] == value
        assert len(lines) == 1 + value


def test_page_needs_all_ratings(folder: Path, test: ListeningTest) -> None:
    sessions = Sessions(folder, test)
    state = sessions.open("Ann")
    page = state["page"]
    with pytest.raises(ConflictError, match="8 ratings"):
        sessions.complete("Ann", page["id"], {})
    state = rate_page(sessions, "Ann", state, VALUES)
    assert state["completed"] == 1
    assert sessions.complete("Ann", page["id"], {}) == state  # its first answer was lost
    with pytest.raises(ConflictError, match="complete"):
        sessions.rate("Ann", page["id"], page["stimuli"][0]["id"], "speech_clarity", 1, 0.0)


@pytest.mark.parametrize(
    ("scale", "value"), [("speech_clarity", 0), ("speech_clarity", 6), ("mushra", 50), ("other", 1)]
)
def test_ratings_outside_scale_are_refused(folder: Path, test: ListeningTest, scale: str, value: int) -> None:
    sessions = Sessions(folder, test)
    page = sessions.open("Ann")["page"]
    with pytest.raises(InputError):
        sessions.rate("Ann", page["id"], page["stimuli"][0]["id"], scale, value, 0.0)
    assert not rating_of(sessions.open("Ann"))[page["stimuli"][0]["id"]]


@pytest.mark.parametrize("name", ["", "   ", "x" * 61, "a\nb", "a\x00", 7, None, "\u202eann"])
def test_impossible_names_are_refused(folder: Path, test: ListeningTest, name: object) -> None:
    with pytest.raises(InputError, match="printable"):
        Sessions(folder, test).open(name)


def test_names_that_look_like_paths_stay_in_folder(folder: Path, test: ListeningTest) -> None:
    sessions = Sessions(folder, test)
    names = ["../../up", "/etc/x", "..", "CON", "Ä", "a\u0308", "名前"]
    for name in names:
        sessions.open(name)
    assert len(list((folder / "ratings").iterdir())) == len(names) - 1  # two are one letter
    assert [one.listener for one in Sessions(folder, test).all()] == [one.listener for one in sessions.all()]


def test_orders_depend_on_seed_and_listener(test: ListeningTest) -> None:
    pages = pages_of(test, "ann")
    assert [page.id for page in pages] == [page.id for page in pages_of(test, "ann")]
    assert [page.kind for page in pages] == ["clarity"] * 3 + ["mushra"] * 3
    other_seed = test.model_copy(update={"seed": 4})
    orders = {
        tuple(stimuli_of(one, name, page))
        for one in (test, other_seed)
        for name in ("ann", "bob", "cid", "dan")
        for page in [next(iter(test.pages.values()))]
    }
    assert len(orders) > 4
    assert all(sorted(order) == sorted(test.clips[0].stimuli.values()) for order in orders)


def test_every_system_stands_at_every_place(test: ListeningTest) -> None:
    page = next(iter(test.pages.values()))
    by_stimulus = {stimulus: name for name, stimulus in page.clip.stimuli.items()}
    first = [by_stimulus[stimuli_of(test, f"listener {n}", page)[0]] for n in range(200)]
    assert min(first.count(name) for name in SYSTEMS) >= 30


def test_listeners_at_the_same_time(folder: Path, test: ListeningTest) -> None:
    sessions = Sessions(folder, test)

    def take_part(name: str) -> None:
        state = sessions.open(name)
        while state["page"] is not None:
            state = rate_page(sessions, name, state, VALUES)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(take_part, [f"listener {n}" for n in range(8)]))
    again = Sessions(folder, test).all()
    assert [len(one.completed) for one in again] == [6] * 8
    assert [len(one.ratings) for one in again] == [3 * 4 * 3] * 8
