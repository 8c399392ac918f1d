"""The guard keeps strangers, other hosts and other origins away from a listening test."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest.importorskip("starlette", reason="starlette is not installed")
pytest.importorskip("httpx2", reason="httpx2 is not installed")

from starlette.testclient import TestClient

from codectok.evaluation.listening.access import access_keys
from codectok.evaluation.listening.stored_test import load_test
from tests.helpers.listening_client import HOST, KEY, OWNER, serve, start


def test_guard_keeps_addresses_without_key_out(folder: Path) -> None:
    test = load_test(folder)
    stimulus = test.clips[0].labelled
    with serve(folder, KEY, "http://test.example:8765") as client:
        paths = [
            "/",
            f"/audio/{stimulus}",
            "/api/session",
            f"/{KEY[:-1]}/",
            f"/{KEY}x/",
            "/%C3%BC/",
            f"//{KEY}/",
        ]
        for path in paths:
            answer = client.get(path) if "session" not in path else client.post(path, json={"name": "Ann"})
            assert answer.status_code == 403
            assert "complete address" in answer.text
        page = client.get(f"/{KEY}/")
        assert (page.status_code, "<title>Listening test</title>" in page.text) == (200, True)
        assert client.get(f"/{KEY}/audio/{stimulus}").status_code == 200
        assert start(client, prefix=f"/{KEY}")["completed"] == 0
        assert client.get(f"/{KEY}/audio/{OWNER}").status_code == 404


@pytest.mark.parametrize("key", [None, KEY])
def test_results_need_key_of_owner(folder: Path, key: str | None) -> None:
    with serve(folder, key) as client:
        for given in ("", "x", KEY, OWNER[:-1], OWNER + "x", "%C3%BC"):
            assert client.get(f"/results/{given}").status_code in (403, 404)
            assert client.get(f"/results/{given}/results.parquet").status_code in (403, 404)
        assert not (folder / "results.parquet").exists()
        assert client.get(f"/results/{OWNER}").status_code == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8765", 200),
        ("localhost", 200),
        ("LOCALHOST:1", 200),
        ("[::1]:8765", 200),
        ("127.0.1.1:8765", 200),
        ("192.0.2.1:8765", 400),
        ("evil.example", 400),
        ("127.0.0.1.evil.example:8765", 400),
        ("localhost.evil.example", 400),
        ("", 400),
        ("[", 400),
    ],
)
def test_loopback_refuses_names_of_other_hosts(client: TestClient, host: str, status: int) -> None:
    assert client.get("/", headers={"host": host}).status_code == status


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:9", "http://["])
def test_other_origins_are_refused(client: TestClient, origin: str) -> None:
    assert client.post("/api/session", json={"name": "Ann"}, headers={"origin": origin}).status_code == 403
    assert client.post("/api/session", json={"name": "Ann"}, headers={"origin": HOST}).status_code == 200


def test_policy_of_page_allows_its_script_alone(client: TestClient) -> None:
    answer = client.get("/")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert len(re.findall("'sha256-", policy)) == 2
    assert not re.search(r'(src|href)="?https?:|url\(|@import', answer.text)
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"


def test_keys_stay_the_same_and_are_private(folder: Path) -> None:
    keys = access_keys(folder)
    assert access_keys(folder) == keys
    assert keys.listeners != keys.owner
    assert len(keys.owner) >= 32
    assert (folder / "access.json").stat().st_mode & 0o077 == 0
