"""A stand-in for the Hugging Face Hub on loopback: the requests by which huggingface_hub reads repositories."""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

INFO = re.compile(r"/api/models/([^/]+/[^/]+)(?:/revision/([^/]+))?")
TREE = re.compile(r"/api/models/([^/]+/[^/]+)/tree/([^/]+)")
FILE = re.compile(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)")
RANGE = re.compile(r"bytes=(\d+)-(\d*)")


@dataclass
class Repository:
    """Files of a repository at a commit.

    Attributes:
        files: contents by path.
        gated: answer requests of files with 401, as for users who have not accepted the terms.
        parent: the commit before.
    """

    files: dict[str, bytes]
    gated: bool = False
    parent: Repository | None = None

    @property
    def commit(self) -> str:
        """A commit that depends on the contents."""
        listed = sorted((name, hashlib.sha1(data).hexdigest()) for name, data in self.files.items())
        return hashlib.sha1(json.dumps(listed).encode()).hexdigest()


@dataclass
class HubServer:
    """The server, and its repositories by name.

    Attributes:
        url: for `HF_ENDPOINT`.
        repositories: by `organisation/name`.
        requests: method and path of every request so far.
        status: answer every request with this status; None to serve.
        silent: accept requests and never answer.
    """

    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    status: int | None = None
    silent: bool = False

    def add(self, name: str, files: Mapping[str, bytes] | Path, gated: bool = False) -> str:
        """Add a repository with `files`, or all files of a folder, and return its commit: a new one of a known name."""
        if isinstance(files, Path):
            files = {str(p.relative_to(files)): p.read_bytes() for p in files.rglob("*") if p.is_file()}
        self.repositories[name] = Repository(dict(files), gated, self.repositories.get(name))
        return self.repositories[name].commit

    def downloads(self) -> list[str]:
        """Names of the files that were downloaded so far."""
        return [
            path.rpartition("/")[2]
            for method, path in map(str.split, self.requests)
            if method == "GET" and FILE.fullmatch(path)
        ]

    def environment(self, folder: Path, **more: str) -> dict[str, str]:
        """Environment of a process that uses this Hub, with its caches in `folder`."""
        ours = {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(folder / "huggingface"),
            "XDG_CACHE_HOME": str(folder / "cache"),
        }
        return {**os.environ, **ours, "NO_PROXY": "127.0.0.1", "HF_HUB_DISABLE_TELEMETRY": "1", **more}

    def use(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        """Use this Hub in this process, which has read the environment already, with the caches in `folder`."""
        from huggingface_hub import constants

        for name, value in self.environment(folder).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(constants, "ENDPOINT", self.url)
        template = self.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder / "huggingface" / "hub"))


@contextmanager
def hub_server() -> Iterator[HubServer]:
    """Run a stand-in Hub in threads of this process."""
    hub = HubServer()
    ended = threading.Event()

    class Handler(_Handler):
        pass

    Handler.hub, Handler.ended = hub, ended
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        ended.set()
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: HubServer
    ended: threading.Event

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Keep standard error clean."""

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        if self.hub.silent:
            self.ended.wait()
            return
        if self.hub.status is not None:
            self._send(self.hub.status, b"{}")
        elif found := TREE.fullmatch(path):
            self._send_tree(found[1], found[2])
        elif found := INFO.fullmatch(path):
            self._send_info(found[1], found[2])
        elif found := FILE.fullmatch(path):
            self._send_file(found[1], found[2], found[3])
        else:
            self._send(404, b"{}")

    def _repository(self, name: str, revision: str | None) -> Repository | None:
        """The repository; if there is none, an error is sent. The Hub answers 401 to strangers, 404 to users."""
        repository = self.hub.repositories.get(name)
        if repository is None:
            self._error(404 if "authorization" in self.headers else 401, "RepoNotFound", "Repository not found")
            return None
        if revision in (None, "main"):
            return repository
        found: Repository | None = repository
        while found is not None and found.commit != revision:
            found = found.parent
        if found is None:
            self._error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return found

    def _send_info(self, name: str, revision: str | None) -> None:
        repository = self._repository(name, revision)
        if repository is not None:
            siblings = [{"rfilename": file} for file in sorted(repository.files)]
            facts = {"_id": "0", "id": name, "modelId": name, "sha": repository.commit, "private": False}
            self._send_json({**facts, "gated": "auto" if repository.gated else False, "siblings": siblings, "tags": []})

    def _send_tree(self, name: str, revision: str) -> None:
        repository = self._repository(name, revision)
        if repository is not None:
            self._send_json(
                [
                    {"type": "file", "path": file, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                    for file, data in sorted(repository.files.items())
                ]
            )

    def _send_file(self, name: str, revision: str, file: str) -> None:
        repository = self._repository(name, revision)
        if repository is None:
            return
        if repository.gated:
            self._error(401, "GatedRepo", f"Access to model {name} is restricted.")
        elif file not in repository.files:
            self._error(404, "EntryNotFound", "Entry not found", {"X-Repo-Commit": repository.commit})
        else:
            data = repository.files[file]
            headers = {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": repository.commit}
            part = RANGE.fullmatch(self.headers.get("Range", ""))
            if part is None:
                self._send(200, data, {**headers, "Accept-Ranges": "bytes"})
            else:
                first, last = int(part[1]), min(int(part[2] or len(data) - 1), len(data) - 1)
                content_range = {"Content-Range": f"bytes {first}-{last}/{len(data)}"}
                self._send(206, data[first : last + 1], {**headers, **content_range})

    def _error(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        body = json.dumps({"error": message}).encode()
        self._send(status, body, {"X-Error-Code": code, "X-Error-Message": message, **(headers or {})})

    def _send_json(self, value: object) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
