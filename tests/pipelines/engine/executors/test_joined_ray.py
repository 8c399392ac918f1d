"""A joined cluster that is lost is told: its head, another head in its place, and the node of this machine."""

from __future__ import annotations

import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray.exceptions import AuthenticationError

from codectok.errors import CodectokError
from codectok.pipelines.engine.executors import joined_ray, ray_address
from codectok.pipelines.engine.executors.joined_ray import RAY_PATIENCE, JoinedRay, watched_cluster
from codectok.pipelines.engine.executors.ray_address import FRAME_HEADER_BYTES, SETTINGS_FRAME
from codectok.pipelines.engine.executors.ray_watch import LostRayError

SESSION = "session_of_this_test"


class Store:
    """The head's store, which knows the session."""

    def __init__(self) -> None:
        self.session: bytes | None = SESSION.encode()

    def internal_kv_get(self, key: bytes, namespace: bytes, timeout: float) -> bytes | None:
        if self.session is None:
            raise AuthenticationError("RPC error: WrongClusterID: Perhaps the client is accessing GCS after a restart.")
        return self.session


@pytest.fixture
def head() -> Iterator[socket.socket]:
    """A server that answers as one of Ray does, but only the greeting."""
    frame = bytes([0, 0, 0, SETTINGS_FRAME]).ljust(FRAME_HEADER_BYTES, b"\0")

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                connection.recv(100)
                connection.sendall(frame)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server
        server.close()


@pytest.fixture
def raylet() -> Iterator[socket.socket]:
    """The socket of this machine's node."""
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as server:
        server.bind(f"{folder}/raylet")
        server.listen()
        yield server


def joined(head: socket.socket, raylet: socket.socket, store: Store) -> JoinedRay:
    address = f"127.0.0.1:{head.getsockname()[1]}"
    return JoinedRay("head:6379", address, raylet.getsockname(), SESSION, store)


def test_cluster_that_answers_is_not_lost(head: socket.socket, raylet: socket.socket) -> None:
    assert joined(head, raylet, Store()).look() is None


@pytest.mark.parametrize("session", [b"session_of_another_head", None])
def test_other_head_is_told(session: bytes | None, head: socket.socket, raylet: socket.socket) -> None:
    store = Store()
    watch = joined(head, raylet, store)
    store.session = session
    assert "The head of the Ray cluster at head:6379 was started again" in str(watch.look())


def test_other_head_is_told_although_the_client_of_the_lost_one_waits(
    head: socket.socket, raylet: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a client of Ray does that reconnects."""

    class Waiting(Store):
        def internal_kv_get(self, key: bytes, namespace: bytes, timeout: float) -> bytes | None:
            ended.wait()
            return self.session

    ended, other = threading.Event(), Store()
    other.session = b"session_of_another_head"
    monkeypatch.setattr(joined_ray, "ANSWER_SECONDS", 1.0)
    monkeypatch.setattr(joined_ray, "_new_store", lambda head: other)
    watch = joined(head, raylet, Waiting())
    try:
        assert watch.look() is None
        assert "was started again" in str(watch.look())
    finally:
        ended.set()


def test_silent_head_is_told_after_a_while(
    head: socket.socket, raylet: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    patient = joined(head, raylet, Store())
    monkeypatch.setenv(RAY_PATIENCE, "0")
    impatient = joined(head, raylet, Store())
    head.close()
    assert patient.look() is None
    assert "has not answered for 0 s (" in str(impatient.look())


def test_lost_node_of_this_machine_is_told(head: socket.socket, raylet: socket.socket) -> None:
    watch = joined(head, raylet, Store())
    Path(raylet.getsockname()).unlink()
    assert "The Ray node of this machine has died" in str(watch.look())


def test_head_that_greets_and_hangs_is_told_within_seconds(
    head: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_address, "PROBE_SECONDS", 1.0)
    address = f"127.0.0.1:{head.getsockname()[1]}"
    with pytest.raises(
        CodectokError, match=f"The Ray cluster at {address} does not answer within 1 s; look at its head"
    ):
        ray_address.check_answer(address)


def test_lost_server_of_a_client_is_told_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray
    from ray._private import worker

    monkeypatch.setattr(worker, "_global_node", None)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    message = r"ray://head:1 is lost \(Client is shutting down\); start the cluster"
    with pytest.raises(LostRayError, match=message), watched_cluster("ray://head:1"):
        raise ConnectionError("Client is shutting down.")
    with pytest.raises(ConnectionRefusedError), watched_cluster("ray://head:1"):
        raise ConnectionRefusedError(111, "refused by a store")
