"""A cluster that this process has joined: its end is told in one sentence, before Ray ends this process.

Ray itself waits a minute for a head that is gone and then ends its processes with lines of its log. If another head
starts at the same address, or the node of this machine dies, a driver waits forever.
"""

from __future__ import annotations

import importlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from typing import Any

from codectok.errors import first_line

from .ray_address import answer_failure
from .ray_watch import LostRayError, RayWatch, quiet_ray

POLL_SECONDS = 2.0
CHECK_SECONDS = 0.5
ANSWER_SECONDS = 5.0
# Time after which Ray ends a process that does not reach the head, and the variable that changes it.
RAY_PATIENCE = "RAY_gcs_rpc_server_reconnect_timeout_s"
RAY_PATIENCE_SECONDS = 60.0
# A head whose store survives it may be started again meanwhile; but this process must end before Ray ends it.
SHARE_OF_PATIENCE = 2 / 3
# The head is lost long before this process is interrupted.
END_SECONDS = 10.0
SESSION_NAME, SESSION_NAMESPACE = b"session_name", b"session"
OTHER_CLUSTER = "WrongClusterID"
RESUME = "run the same command again to continue"


class JoinedRay(RayWatch):
    """Watches the head of a joined cluster, and the node of this machine.

    Args:
        address: as the user gave it, for messages.
        head: HOST:PORT of the head.
        raylet_socket: path of the socket of this machine's node.
        session: name of the cluster's session; a head that was started again has another one.
        store: client of the head's key-value store.
    """

    def __init__(self, address: str, head: str, raylet_socket: str, session: str, store: Any) -> None:
        super().__init__(POLL_SECONDS, END_SECONDS)
        self._address, self._head, self._raylet_socket = address, head, raylet_socket
        self._session, self._store = session, store  # None if the next question needs a new client
        self._patience = SHARE_OF_PATIENCE * float(os.environ.get(RAY_PATIENCE, RAY_PATIENCE_SECONDS))
        self._answered = self._looked = time.monotonic()

    def check(self) -> None:
        """Raise a `LostRayError` if the cluster is lost; looks at it now.

        Ray aborts a process that asks another cluster at the same address for its nodes.
        """
        if time.monotonic() - self._looked > CHECK_SECONDS:
            self.look()
        super().check()

    def find_loss(self) -> str | None:
        """Ask the head, then the node of this machine."""
        self._looked = time.monotonic()
        failure = answer_failure(self._head, ANSWER_SECONDS)
        silent = time.monotonic() - self._answered
        if failure is None:
            self._answered = time.monotonic()
            other = self._find_other_cluster()
            if other is not None:
                return other
        elif silent > self._patience:
            return (
                f"The head of the Ray cluster at {self._address} has not answered for {silent:.0f} s ({failure}); start"
                f" the cluster again or repair the network, and {RESUME}."
            )
        if _listens(self._raylet_socket):
            return None
        return (
            f"The Ray node of this machine has died, which had joined the cluster at {self._address}; start it again,"
            f" and {RESUME}."
        )

    def _find_other_cluster(self) -> str | None:
        from ray.exceptions import RayError

        try:
            found = self._ask_session()
        except RayError as error:
            if OTHER_CLUSTER not in first_line(error):
                return None  # the greeting decides how long a head is silent
            found = b""
        if found is None or found.decode() == self._session:
            return None
        return (
            f"The head of the Ray cluster at {self._address} was started again, and this command's workers are lost;"
            f" let all nodes join the new head, and {RESUME}."
        )

    def _ask_session(self) -> bytes | None:
        """Return the session of the head; None if it has none yet, or does not answer.

        A client that has lost its head may wait for it longer than it was told to, also if another head is there: the
        next question has a new client.
        """
        answers: SimpleQueue[tuple[Any, bytes | Exception | None]] = SimpleQueue()
        store, self._store = self._store, None

        def ask() -> None:
            client = store
            try:
                client = client or _new_store(self._head)
                answers.put((client, client.internal_kv_get(SESSION_NAME, SESSION_NAMESPACE, timeout=ANSWER_SECONDS)))
            except Exception as error:
                answers.put((client, error))  # raised below

        threading.Thread(target=ask, daemon=True).start()
        try:
            self._store, answer = answers.get(timeout=ANSWER_SECONDS)
        except Empty:
            return None
        if isinstance(answer, Exception):
            raise answer
        return answer


def _new_store(head: str) -> Any:
    """Connect to the store of the cluster at `head`, whichever it is."""
    raylet: Any = importlib.import_module("ray._raylet")
    return raylet.GcsClient(address=head)


@contextmanager
def watched_cluster(address: str) -> Iterator[Callable[[], None]]:
    """Watch the cluster at `address`, which this process has joined, while the context lasts; then leave it.

    Yields:
        a function that raises a `LostRayError` if the cluster is lost.
    """
    import ray
    from ray._private import worker

    node: Any = worker._global_node
    driver: Any = worker.global_worker
    if node is None:  # a client (ray://) has no node on this machine
        try:
            yield lambda: None
        except Exception as error:
            if not _is_of_client(error):
                raise
            raise LostRayError(
                f"The connection to the Ray cluster at {address} is lost ({first_line(error).rstrip('.')}); start the"
                f" cluster again or repair the network, and {RESUME}."
            ) from None
        finally:
            ray.shutdown()
        return
    joined = JoinedRay(address, node.gcs_address, node.raylet_socket_name, node.session_name, driver.gcs_client)
    try:
        with quiet_ray(), joined.watch():
            yield joined.check
    finally:
        ray.shutdown()
        joined.end()


def _is_of_client(error: Exception) -> bool:
    """True for errors of a client of Ray whose server is gone; errors of the system have a number."""
    lost = isinstance(error, ConnectionError) and error.errno is None
    return lost or any(kind.__module__.partition(".")[0] == "grpc" for kind in type(error).__mro__)


def _listens(path: str) -> bool:
    """True if a process accepts connections at a socket of this machine."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(ANSWER_SECONDS)
        try:
            connection.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            return True  # it is busy
    return True
