"""Runs the server of a listening test until it is stopped."""

from __future__ import annotations

import errno
import fcntl
import ipaddress
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from codectok.errors import InputError

from .access import access_keys
from .guard import RESULTS
from .results import Results, collect_results, write_results
from .sessions import Sessions
from .stored_test import ListeningTest

LOCK_FILE = ".lock"
MOST_CONNECTIONS = 500
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class Addresses:
    """Addresses of a running test.

    Attributes:
        listeners: for listeners.
        results: for the owner alone.
        is_open: True if other machines reach the server.
    """

    listeners: str
    results: str
    is_open: bool


def check_packages() -> None:
    """Raise an `InputError` if the server's packages are not installed."""
    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError:
        raise InputError(
            'codectok listen needs starlette and uvicorn; install them with pip install "codectok[listen]".'
        ) from None


def check_address(host: str, port: int) -> None:
    """Raise an `InputError` if the server could not listen at this address now."""
    _bind(host, port).close()


def serve_test(
    folder: Path,
    test: ListeningTest,
    host: str,
    port: int,
    on_start: Callable[[Addresses], None],
    on_failure: Callable[[str], None],
) -> Results:
    """Serve a test until Ctrl-C or a signal; write and return its results.

    Args:
        folder: of the test.
        test: the test.
        host: name or address to listen at; others than loopback need a key in every address.
        port: to listen at; 0 for a free one.
        on_start: called once the server listens.
        on_failure: receives a sentence if the disk fails during a request.

    Raises:
        InputError: the test is served already, the port is taken, or there is no such host.
    """
    check_packages()
    from .server import ListeningServer

    with _lock(folder), closing(_bind(host, port)) as bound:
        keys, sessions = access_keys(folder), Sessions(folder, test)
        address = bound.getsockname()
        is_open = not ipaddress.ip_address(address[0].partition("%")[0]).is_loopback
        place = f"http://{_shown_host(host, address[0])}:{address[1]}"
        listeners = f"{place}/{keys.listeners}/" if is_open else f"{place}/"
        key = keys.listeners if is_open else None
        server = ListeningServer(folder, test, sessions, keys.owner, key, on_failure)
        _run(server, bound, lambda: on_start(Addresses(listeners, f"{place}/{RESULTS}/{keys.owner}", is_open)))
        results = collect_results(test, sessions)
        if results.rows:
            write_results(folder, results)
        return results


def stored_results(folder: Path, test: ListeningTest) -> Results:
    """Write and return the results of a test that is not being served."""
    with _lock(folder):
        results = collect_results(test, Sessions(folder, test))
        if results.rows:
            write_results(folder, results)
        return results


def _run(server: object, bound: socket.socket, on_start: Callable[[], None]) -> None:
    import uvicorn

    class StoppableServer(uvicorn.Server):
        """Ends without an exception, so that results are written and shown."""

        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            before = {number: signal.getsignal(number) for number in SIGNALS}
            for number in SIGNALS:
                if number != signal.SIGHUP or before[number] is not signal.SIG_IGN:
                    signal.signal(number, self.handle_exit)
            try:
                yield
            finally:
                for number, handler in before.items():
                    signal.signal(number, handler)

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            on_start()

    config = uvicorn.Config(
        server.app,  # type: ignore[attr-defined]
        log_config=None,
        log_level="error",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ws="none",
        lifespan="off",
        limit_concurrency=MOST_CONNECTIONS,
        timeout_keep_alive=15,
        timeout_graceful_shutdown=5,
    )
    StoppableServer(config).run(sockets=[bound])


def _bind(host: str, port: int) -> socket.socket:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        message = f"There is no host {host} on this machine; use 127.0.0.1, 0.0.0.0 or one of its names."
        raise InputError(message) from None
    family, kind, protocol, _, address = found[0]
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(128)
    except OSError as error:
        bound.close()
        if error.errno == errno.EADDRINUSE:
            raise InputError(f"Port {port} is taken; choose another with --port, or --port 0 for a free one.") from None
        if error.errno == errno.EACCES:
            raise InputError(f"Port {port} is reserved for the system; choose a --port above 1023.") from None
        raise InputError(f"The server cannot listen at {host}: {error.strerror or error}.") from None
    return bound


def _shown_host(host: str, address: str) -> str:
    """The host in an address that a browser can open; on loopback not by a name that could belong to others."""
    found = ipaddress.ip_address(address.partition("%")[0])
    if found.is_unspecified:
        return socket.gethostname()
    shown = address if found.is_loopback and host != "localhost" else host
    return f"[{shown}]" if ":" in shown else shown


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Keep other processes from serving the same test, since each holds its ratings in memory."""
    descriptor = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{folder} is being served by another process; stop that one first.") from None
        yield
    finally:
        os.close(descriptor)
