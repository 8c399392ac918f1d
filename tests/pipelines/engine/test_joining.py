"""Joining a cluster: tokens and versions are told in one sentence."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from codectok.pipelines.engine.executors.ray_address import cluster_address, probe_problem
from codectok.pipelines.engine.executors.ray_cluster import init_problem
from codectok.pipelines.engine.executors.ray_token import token_place, use_token
from tests.helpers.clusters import ray_head
from tests.helpers.exports import write_parts

TOKEN = "0123456789abcdef0123456789abcdef0123456789abcdef"
# The suite allows a slow machine more than the seconds that a user waits.
ANSWER_SECONDS = 60.0


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without a token, and no variables of one."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in [name for name in os.environ if name.startswith("RAY_AUTH_")]:
        monkeypatch.delenv(name)
    return tmp_path


def write_token(home: Path, token: str = TOKEN) -> None:
    (home / ".ray").mkdir()
    (home / ".ray" / "auth_token").write_text(token)


def versions(ray_version: str = ray.__version__, python: str = platform.python_version()) -> dict[str, object]:
    return {"versions": {"ray_version": ray_version, "python_version": python}}


def test_versions_must_agree(home: Path) -> None:
    major, minor, _ = platform.python_version_tuple()
    assert probe_problem(versions(), "") is None
    assert probe_problem(versions(python=f"{major}.{minor}.99"), "") is None
    assert "it runs Ray 2.1.0, and this machine has Ray" in str(probe_problem(versions("2.1.0"), ""))
    assert "it runs Python 3.7.1, and" in str(probe_problem(versions(python="3.7.1"), ""))
    assert probe_problem({"other": "much\nno route."}, "") == "no route"
    assert probe_problem({}, "at /home/author/x.py\nKeyError: 'a'") == "KeyError: 'a'"
    assert probe_problem({}, "") == "it does not tell its version"


def test_answers_of_ray_client(home: Path) -> None:
    assert probe_problem({"answered": True}, "") is None
    assert probe_problem({"other": "the server there is not one of Ray Client"}, "") is not None
    died = "Initialization failure from server:\nTraceback (most recent call last):\n  File x\nRuntimeError: no port.\n"
    assert init_problem(ConnectionAbortedError(died)) == "RuntimeError: no port"
    assert (
        init_problem(RuntimeError("Version mismatch: it runs\n    Ray: 2.1\n")) == "Version mismatch: it runs Ray: 2.1"
    )
    assert init_problem(ValueError("one\ntwo")) == "one"
    merging = init_problem(ValueError("Failed to merge the Job's runtime env {'env_vars': {'KEY': 'secret'}} ..."))
    assert "py_modules" in merging
    assert "secret" not in merging


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("ray://head", "ray://head:10001"),
        ("ray://[::1]", "ray://[::1]:10001"),
        ("ray://head:5", "ray://head:5"),
        ("head:6379", "head:6379"),
        ("local", None),
    ],
)
def test_address_of_ray_client_gets_its_port(address: str, expected: str | None) -> None:
    assert cluster_address(address) == expected


def test_token_is_taken_in_the_order_of_ray(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert token_place() is None
    assert not use_token()
    assert "RAY_AUTH_MODE" not in os.environ
    write_token(home)
    assert token_place() == "~/.ray/auth_token"
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "/some/file")
    monkeypatch.setenv("RAY_AUTH_TOKEN", " ")
    assert token_place() == "RAY_AUTH_TOKEN_PATH (/some/file)"
    assert "the file /some/file of RAY_AUTH_TOKEN_PATH does not exist" in str(probe_problem({"refused": ""}, ""))
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    assert token_place() == "RAY_AUTH_TOKEN"
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    assert not use_token()
    assert os.environ["RAY_AUTH_MODE"] == "disabled"
    assert "but RAY_AUTH_MODE is 'disabled'" in str(probe_problem({"refused": ""}, ""))
    monkeypatch.setattr(sys, "modules", {name: one for name, one in sys.modules.items() if name != "ray"})
    monkeypatch.delenv("RAY_AUTH_MODE")
    assert use_token()
    assert os.environ["RAY_AUTH_MODE"] == "token"
    assert "does not accept the token in RAY_AUTH_TOKEN" in str(probe_problem({"refused": ""}, ""))


def test_missing_token_is_told(home: Path) -> None:
    problem = "it asks for a token; set RAY_AUTH_TOKEN to the token of the cluster, or store it in ~/.ray/auth_token"
    assert probe_problem({"refused": "InvalidAuthToken"}, "") == problem
    # Ray aborts a process that has the mode, but no token.
    assert probe_problem({}, "Token authentication is enabled but no authentication token was found") == problem


@pytest.fixture(scope="module")
def guarded_head() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="head") as folder:
        yield from _head(Path(folder), {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN})


@pytest.fixture(scope="module")
def open_head() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="head") as folder:
        yield from _head(Path(folder), {"RAY_AUTH_MODE": "disabled"})


def _head(folder: Path, environment: dict[str, str]) -> Iterator[str]:
    with ray_head(folder, environment) as address:
        yield address


def export(address: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `export sequences` in a cluster from a new process, as a user does."""
    table = folder / "tokens"
    if not table.exists():
        write_parts(table, 30)
    command = [sys.executable, "-m", "codectok", "export", "sequences", str(table), str(folder / "out")]
    command += ["--offset", "400", "--eos", "0", "--address", address]
    variables = {**os.environ, **environment}
    started = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=variables, timeout=300)
    assert time.monotonic() - started < ANSWER_SECONDS or done.returncode == 0
    return done


@pytest.mark.cluster
def test_cluster_with_a_token_is_joined(guarded_head: str, home: Path) -> None:
    """By a variable, and by the file."""
    done = export(guarded_head, home, RAY_AUTH_TOKEN=TOKEN)
    assert done.returncode == 0, done.stdout + done.stderr
    write_token(home)
    (home / "out").rename(home / "first")
    done = export(guarded_head, home)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.cluster
def test_refused_token_is_told_in_one_sentence(guarded_head: str, home: Path) -> None:
    for environment, message in (
        ({}, "asks for a token; set RAY_AUTH_TOKEN"),
        ({"RAY_AUTH_MODE": "token"}, "asks for a token; set RAY_AUTH_TOKEN"),
        ({"RAY_AUTH_TOKEN": TOKEN[::-1]}, "does not accept the token in RAY_AUTH_TOKEN"),
        ({"RAY_AUTH_TOKEN": TOKEN, "RAY_AUTH_MODE": "disabled"}, "RAY_AUTH_MODE is 'disabled'"),
    ):
        done = export(guarded_head, home, **environment)
        text = " ".join((done.stdout + done.stderr).split())
        assert done.returncode == 1, text
        assert message in text
        assert text.startswith("Error: ")
        assert text.count("Error") == 1
        assert "Traceback" not in text


@pytest.mark.cluster
def test_cluster_without_a_token_is_joined_by_all(open_head: str, home: Path) -> None:
    done = export(open_head, home)
    assert done.returncode == 0, done.stdout + done.stderr
    (home / "out").rename(home / "first")
    done = export(open_head, home, RAY_AUTH_TOKEN=TOKEN)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.cluster
def test_machines_with_another_codectok_get_ours(home: Path) -> None:
    """The head's path leads to another codectok, which cannot do anything."""
    other = home / "other" / "codectok"
    other.mkdir(parents=True)
    (other / "__init__.py").write_text("raise ImportError('this is another codectok')\n")
    with tempfile.TemporaryDirectory(prefix="head") as folder:
        variables = {"RAY_AUTH_MODE": "disabled", "PYTHONPATH": str(home / "other")}
        with ray_head(Path(folder), variables) as address:
            done = export(address, home)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not list((home / "out" / "_codectok" / "probes").iterdir())
