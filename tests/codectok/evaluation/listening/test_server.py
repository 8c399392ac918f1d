"""The server shows listeners nothing about systems, serves only the test's own files, and refuses strangers."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

pytest.importorskip("starlette", reason="starlette is not installed")
pytest.importorskip("httpx2", reason="httpx2 is not installed")

from starlette.testclient import TestClient

from codectok.errors import InputError
from codectok.evaluation.listening.server import LARGEST_BODY, ListeningServer
from codectok.evaluation.listening.sessions import Sessions
from codectok.evaluation.listening.stored_test import load_test
from tests.helpers.listening import SYSTEMS
from tests.helpers.listening_client import HOST, OWNER, serve, start


def rate_all(client: TestClient, state: dict[str, Any], values: dict[str, int]) -> dict[str, Any]:
    page = state["page"]
    for shown in page["stimuli"]:
        for scale in page["scales"]:
            body = {
                "name": "Ann",
                "page": page["id"],
                "stimulus": shown["id"],
                "scale": scale["name"],
                "value": values[shown["id"]] if scale["name"] == "mushra" else 1 + values[shown["id"]] % 5,
                "listened": 2.25,
            }
            assert client.post("/api/rating", json=body).json() == {"saved": True}
    listened = {shown["id"]: 3.5 for shown in page["stimuli"]}
    answer = client.post("/api/page", json={"name": "Ann", "page": page["id"], "listened": listened})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_session_continues_after_restart_and_ends_in_parquet(folder: Path) -> None:
    test = load_test(folder)
    ids = [name for clip in test.clips for name in clip.stimuli.values()]
    values = {name: 7 * number % 101 for number, name in enumerate(ids)}
    with serve(folder) as client:
        state = rate_all(client, start(client), values)
        current = state["page"]["id"]
    with serve(folder) as client:
        state = start(client)
        assert (state["completed"], state["page"]["id"]) == (1, current)
        while state["page"] is not None:
            state = rate_all(client, state, values)
        assert state["completed"] == state["pages"] == 4
        assert client.get(f"/results/{OWNER}").status_code == 200
        content = client.get(f"/results/{OWNER}/results.parquet").content
    rows = pq.read_table(io.BytesIO(content)).to_pylist()
    assert rows == pq.read_table(folder / "results.parquet").to_pylist()
    by_clip = {clip.clip: clip for clip in test.clips}
    assert len(rows) == 2 * 4 * 3
    for row in rows:
        value = values[by_clip[row["clip"]].stimuli[row["system"]]]
        assert row["value"] == (value if row["scale"] == "mushra" else 1 + value % 5)
        assert row["seconds_listened"] == 3.5
        assert row["complete"]


def test_listeners_see_nothing_about_systems(client: TestClient, folder: Path) -> None:
    state = start(client)
    seen = [client.get("/").text.split("<script>")[0], json.dumps(state)]
    headers = []
    while state["page"] is not None:
        page = state["page"]
        ids = [shown["id"] for shown in page["stimuli"]]
        assert all(re.fullmatch("[0-9a-f]{32}", name) for name in ids)
        assert (page["labelled"] is None) == (page["kind"] == "clarity")
        for name in [*ids, *filter(None, [page["labelled"]])]:
            answer = client.get(f"/audio/{name}")
            assert answer.content == (folder / "stimuli" / f"{name}.wav").read_bytes()
            headers.append(dict(answer.headers))
        state = rate_all(client, state, dict.fromkeys(ids, 50))
        seen.append(json.dumps(state))
    text = "".join(seen)
    for word in (*SYSTEMS[1:], "secret", "clip-0", "0.wav", "fingerprint"):
        assert word not in text
    assert '"reference"' not in text
    assert all(one == headers[0] for one in headers)
    assert not {"etag", "last-modified", "content-disposition"} & headers[0].keys()


TRAVERSALS = [
    "../secret.wav",
    "..%2fsecret.wav",
    "..%2Fsecret.wav",
    "%2e%2e%2fsecret.wav",
    "%2e%2e/secret.wav",
    "..%5csecret.wav",
    "..%252fsecret.wav",
    "%252e%252e%252fsecret.wav",
    "../../secret.wav",
    "../listening.json",
    "../access.json",
    "..%2faccess.json",
    "%2fetc%2fpasswd",
    "//etc/passwd",
    "secret",
    "secret.wav",
    "..%c0%afsecret.wav",
    "%00",
    "..;/secret.wav",
    "",
    ".",
]


@pytest.mark.parametrize("prefix", ["/audio/", "/", "/results/"])
def test_no_other_file_is_served(client: TestClient, prefix: str) -> None:
    for path in TRAVERSALS:
        answer = send_raw(client, prefix + path)
        if answer.status_code == 200:  # a path that means the page itself
            assert "<title>Listening test</title>" in answer.text
        else:
            assert answer.status_code in (403, 404), path
        assert b"secret" not in answer.content
        assert b"root:" not in answer.content


def send_raw(client: TestClient, path: str) -> Any:
    """Send a path as it is, without the normalisation of a client."""
    request = client.build_request("GET", HOST)
    request.url = request.url.copy_with(raw_path=path.encode())
    return client.send(request)


@pytest.mark.parametrize("path", ["/api/session", "/api/rating", "/api/page"])
def test_large_bodies_are_refused(client: TestClient, path: str) -> None:
    blocks = (b" " * (LARGEST_BODY // 4) for _ in range(5))  # without a length in the header
    headers = {"content-type": "application/json"}
    assert client.post(path, content=blocks, headers=headers).status_code == 413
    assert client.post(path, content=b" " * (LARGEST_BODY + 1), headers=headers).status_code == 413


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b"{", "application/json", 400),
        (b"[]", "application/json", 400),
        (b"\xff", "application/json", 400),
        (b"[" * 60_000, "application/json", 400),
        (b'{"name": "Ann", "more": 1}', "application/json", 400),
        (b'{"name": "\\ud800"}', "application/json", 400),
        (b'{"name": "Ann"}', "text/plain", 415),
        (b"name=Ann", "application/x-www-form-urlencoded", 415),
    ],
)
def test_bodies_that_are_not_requests_are_refused(client: TestClient, content: bytes, kind: str, status: int) -> None:
    answer = client.post("/api/session", content=content, headers={"content-type": kind})
    assert answer.status_code == status
    assert answer.json()["error"]


def test_impossible_values_are_refused(client: TestClient) -> None:
    page = start(client)["page"]
    body = {"name": "Ann", "page": page["id"], "stimulus": page["stimuli"][0]["id"], "scale": "speech_clarity"}
    values: list[tuple[object, object]] = [(3, listened) for listened in (-1, 1e9, "NaN", "Infinity", '"x"', "null")]
    values += [(value, 0) for value in (50, 0, 6, -1, 5.5, '"5"', "true", "null", "1e400", 10**30)]
    for value, listened in values:
        content = f'{json.dumps(body)[:-1]}, "value": {value}, "listened": {listened}}}'
        answer = client.post("/api/rating", content=content, headers={"content-type": "application/json"})
        assert answer.status_code == 400, content
    assert start(client)["page"]["stimuli"][0]["ratings"] == {}


def test_stimulus_of_another_page_is_refused(client: TestClient, folder: Path) -> None:
    page = start(client)["page"]["id"]
    other = next(clip for clip in load_test(folder).clips if not page.startswith(f"{clip.id}-"))
    body = {"name": "Ann", "page": page, "scale": "speech_clarity", "value": 3, "listened": 0}
    answer = client.post("/api/rating", json={**body, "stimulus": other.stimuli["ours"]})
    assert answer.status_code == 400


def test_missing_ratings_keep_page_open(client: TestClient) -> None:
    page = start(client)["page"]
    answer = client.post("/api/page", json={"name": "Ann", "page": page["id"], "listened": {}})
    assert (answer.status_code, "missing" in answer.json()["error"]) == (409, True)
    assert start(client)["page"]["id"] == page["id"]


def test_disk_failure_is_not_answered_as_saved(folder: Path) -> None:
    test = load_test(folder)
    failures: list[str] = []
    sessions = Sessions(folder, test)
    server = ListeningServer(folder, test, sessions, OWNER, None, failures.append)
    with TestClient(server.app, base_url=HOST) as client:
        page = start(client)["page"]
        for path in (folder / "ratings").iterdir():
            path.unlink()
        (folder / "ratings").rmdir()
        body = {"name": "Ann", "page": page["id"], "scale": "speech_clarity", "value": 3, "listened": 0}
        answer = client.post("/api/rating", json={**body, "stimulus": page["stimuli"][0]["id"]})
        assert answer.status_code == 503
        assert start(client)["page"]["stimuli"][0]["ratings"] == {}
    assert len(failures) == 1
    assert "ratings" in failures[0]


def test_missing_stimulus_is_one_sentence(folder: Path) -> None:
    test = load_test(folder)
    (folder / "stimuli" / f"{test.clips[0].labelled}.wav").unlink()
    with pytest.raises(InputError, match=r"1 of 10 stimuli"):
        load_test(folder)


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "A" * 32, "0" * 31, "0" * 32 + "\n"])
def test_test_file_cannot_name_other_files(folder: Path, name: str) -> None:
    content = json.loads((folder / "listening.json").read_text())
    content["clips"][0]["stimuli"]["ours"] = name
    (folder / "listening.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"clips\.0\.stimuli\.ours"):
        load_test(folder)
