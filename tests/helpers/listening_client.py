"""Sends requests to the server of a listening test, without a port."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from codectok.evaluation.listening.server import ListeningServer
from codectok.evaluation.listening.sessions import Sessions
from codectok.evaluation.listening.stored_test import load_test

OWNER, KEY = "owner-key-owner-key", "listeners-key-listeners"
HOST = "http://127.0.0.1:8765"


def serve(folder: Path, key: str | None = None, base_url: str = HOST) -> TestClient:
    test = load_test(folder)
    server = ListeningServer(folder, test, Sessions(folder, test), OWNER, key)
    return TestClient(server.app, base_url=base_url, follow_redirects=False)


def start(client: TestClient, name: str = "Ann", prefix: str = "") -> dict[str, Any]:
    answer = client.post(f"{prefix}/api/session", json={"name": name})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found
