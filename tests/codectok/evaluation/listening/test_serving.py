"""A server that listens at real ports: addresses, raw requests, Ctrl-C, and refusals of one sentence."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("uvicorn", reason="uvicorn is not installed")

from codectok.errors import InputError
from codectok.evaluation.listening.results import Results
from codectok.evaluation.listening.serving import Addresses, check_packages, serve_test, stored_results
from codectok.evaluation.listening.sessions import Sessions
from codectok.evaluation.listening.stored_test import load_test
from tests.helpers.command_line import assert_refused, codectok
from tests.helpers.listening import rate_page, write_listening_test


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_listening_test(tmp_path / "test")
    (tmp_path / "secret.wav").write_bytes(b"secret")
    return tmp_path / "test"


def serve(folder: Path, host: str, use: Callable[[Addresses], None]) -> Results:
    """Serve in this thread while another one uses the server; it ends with SIGINT."""
    errors: list[BaseException] = []

    def use_and_stop(addresses: Addresses) -> None:
        try:
            use(addresses)
        except BaseException as error:  # shown in the thread of the test
            errors.append(error)
        finally:
            os.kill(os.getpid(), signal.SIGINT)

    def on_start(addresses: Addresses) -> None:
        threading.Thread(target=use_and_stop, args=[addresses]).start()

    results = serve_test(folder, load_test(folder), host, 0, on_start, pytest.fail)
    if errors:
        raise errors[0]
    return results


def get(addresses: Addresses, path: str, host: str = "127.0.0.1") -> tuple[int, bytes]:
    """Send a path exactly as it is."""
    port = int(addresses.results.split("/")[2].rpartition(":")[2])
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.putrequest("GET", path, skip_host=True)
    connection.putheader("Host", f"{host}:{port}")
    connection.endheaders()
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, content


def test_loopback_needs_no_key_and_serves_no_other_file(folder: Path) -> None:
    def use(addresses: Addresses) -> None:
        assert addresses.listeners.startswith("http://127.0.0.1:")
        assert addresses.listeners.count("/") == 3
        assert not addresses.is_open
        assert get(addresses, "/")[0] == 200
        assert get(addresses, "/", host="evil.example")[0] == 400
        for path in ("/../secret.wav", "/audio/../../secret.wav", "/audio/..%2f..%2fsecret.wav", "/audio/%2e%2e/x"):
            status, content = get(addresses, path)
            assert (status, b"secret" in content) == (404, False)
        assert get(addresses, f"/results/{addresses.results.rpartition('/')[2]}")[0] == 200

    before = signal.getsignal(signal.SIGINT)
    results = serve(folder, "127.0.0.1", use)
    assert results.rows == ()
    assert signal.getsignal(signal.SIGINT) is before


def test_open_server_needs_key(folder: Path) -> None:
    def use(addresses: Addresses) -> None:
        key = addresses.listeners.rstrip("/").rpartition("/")[2]
        assert addresses.is_open
        assert len(key) >= 32
        assert key not in addresses.results
        assert get(addresses, "/")[0] == 403
        assert get(addresses, f"/{key}/", host="any.example")[0] == 200
        assert get(addresses, f"/{key[:-1]}/")[0] == 403
        assert get(addresses, f"/results/{key}")[0] == 403
        keys.append(key)

    keys: list[str] = []
    serve(folder, "0.0.0.0", use)
    serve(folder, "0.0.0.0", use)
    assert keys[0] == keys[1]  # addresses survive a restart


def test_end_writes_results(folder: Path) -> None:
    sessions = Sessions(folder, load_test(folder))
    rate_page(sessions, "Ann", sessions.open("Ann"), {"reference": 100, "anchor": 0, "ours": 50, "theirs": 60})
    results = serve(folder, "localhost", lambda addresses: None)
    assert len(results.rows) == 4
    assert (folder / "results.parquet").exists()
    assert "Listening test" in (folder / "results.html").read_text()


def test_test_is_served_once_at_a_time(folder: Path) -> None:
    def use(addresses: Addresses) -> None:
        with pytest.raises(InputError, match="another process"):
            stored_results(folder, load_test(folder))

    serve(folder, "127.0.0.1", use)
    assert stored_results(folder, load_test(folder)).rows == ()


def test_taken_port_is_one_sentence(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert_refused(codectok("listen", folder, "--port", port), f"Port {port}", "--port 0")
        new = ["listen", folder.parent / "new", "--reference", folder, "--folder", f"x={folder}"]
        assert_refused(codectok(*new, "--port", port), f"Port {port}")  # before the preparation
        assert not (folder.parent / "new").exists()


def test_unknown_host_is_one_sentence(folder: Path) -> None:
    assert_refused(codectok("listen", folder, "--host", "no.such.host.invalid"), "no.such.host.invalid")
    assert_refused(codectok("listen", folder, "--host", "192.0.2.7", "--port", 0), "192.0.2.7")


def test_missing_package_is_one_sentence(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(InputError, match=r"codectok\[listen\]"):
        check_packages()
    assert_refused(codectok("listen", folder), "codectok[listen]")
    assert codectok("listen", folder, "--no-serve").exit_code == 0
