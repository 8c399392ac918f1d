"""Jobs through Ray Client (`ray://`): from a machine that reaches one port of the head only."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.clusters import free_port, ray_head
from tests.helpers.command_line import one_line
from tests.helpers.exports import write_parts
from tests.helpers.jobs import digests

pytestmark = pytest.mark.cluster

TOKEN = "0123456789abcdef0123456789abcdef0123456789abcdef"
WAIT_SECONDS = 200.0
ANSWER_SECONDS = 30.0


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_parts(tmp_path_factory.mktemp("tables") / "tokens", 30)


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, str]]:
    """Address of a server of Ray Client that asks for a token, and address of its head."""
    port = free_port()
    environment = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}
    with (
        tempfile.TemporaryDirectory(prefix="head") as folder,
        ray_head(Path(folder), environment, f"--ray-client-server-port={port}") as address,
    ):
        yield f"ray://127.0.0.1:{port}", address


@pytest.fixture(autouse=True)
def no_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in [name for name in os.environ if name.startswith("RAY_A")]:
        monkeypatch.delenv(name)


def export(table: Path, out: Path, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "codectok", "export", "sequences", str(table), str(out)]
    command += ["--offset", "400", "--eos", "0", *options]
    variables = {**os.environ, **environment}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=variables, timeout=WAIT_SECONDS)


def test_job_through_ray_client_has_the_same_bytes(server: tuple[str, str], table: Path, tmp_path: Path) -> None:
    done = export(table, tmp_path / "out", "--address", server[0], RAY_AUTH_TOKEN=TOKEN)
    assert done.returncode == 0, done.stdout + done.stderr
    assert export(table, tmp_path / "local", "--engine", "local").returncode == 0
    assert digests(tmp_path / "out") == digests(tmp_path / "local")


@pytest.mark.parametrize(
    ("environment", "word"),
    [({}, "set RAY_AUTH_TOKEN"), ({"RAY_AUTH_TOKEN": TOKEN[::-1]}, "does not accept the token in RAY_AUTH_TOKEN")],
)
def test_refused_token_of_ray_client_is_told(
    server: tuple[str, str], table: Path, tmp_path: Path, environment: dict[str, str], word: str
) -> None:
    check_refusal(table, tmp_path / "out", server[0], word, **environment)


def test_port_of_another_server_of_ray_is_told(server: tuple[str, str], table: Path, tmp_path: Path) -> None:
    client, head = server
    check_refusal(table, tmp_path / "a", f"ray://{head}", "not one of Ray Client", RAY_AUTH_TOKEN=TOKEN)
    check_refusal(table, tmp_path / "b", client.removeprefix("ray://"), f"write {client}", RAY_AUTH_TOKEN=TOKEN)


def check_refusal(table: Path, out: Path, address: str, word: str, **environment: str) -> None:
    started = time.monotonic()
    done = export(table, out, "--address", address, **environment)
    text = one_line(done.stdout + done.stderr)
    assert done.returncode == 1, text
    assert word in text
    assert text.startswith("Error: ") and text.count("Error") == 1
    assert time.monotonic() - started < ANSWER_SECONDS
