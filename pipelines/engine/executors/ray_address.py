"""Address of a Ray cluster: where it is named, and if a cluster answers there."""

from __future__ import annotations

import os
import socket
import threading

from codectok.errors import CodectokError, first_line

ANSWER_SECONDS = 10.0
DEFAULT_PORT = 6379
# Every server of Ray speaks gRPC, thus HTTP/2: it answers this greeting with its settings.
GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
SETTINGS_FRAME = 4
FRAME_HEADER_BYTES = 9


def cluster_address(address: str | None) -> str | None:
    """Address of the cluster to join: `address`, or `RAY_ADDRESS`; None to start Ray on this machine."""
    found = address or os.environ.get("RAY_ADDRESS")
    return None if found == "local" else found or None


def check_answer(address: str) -> None:
    """Raise a `CodectokError` if no Ray answers at `address` within seconds; Ray itself tries for many minutes."""
    failures: list[str] = []
    thread = threading.Thread(target=lambda: failures.extend(_try(address)), daemon=True)
    thread.start()
    thread.join(ANSWER_SECONDS)  # the search for a host's address has no time limit
    if thread.is_alive():
        failures.append(f"there is no answer within {ANSWER_SECONDS:g} s")
    if failures:
        raise CodectokError(
            f"Ray could not be reached at {address}: {failures[0]}; start the cluster, or name another one with"
            " --address or RAY_ADDRESS."
        )


def _try(address: str) -> list[str]:
    """Return the failure to reach `address`, if there is one."""
    try:
        host, port = _host_and_port(address)
        with socket.create_connection((host, port), ANSWER_SECONDS) as connection:
            if os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true"):
                return []
            connection.sendall(GREETING)
            header = connection.recv(FRAME_HEADER_BYTES, socket.MSG_WAITALL)
    except TimeoutError:
        return [f"there is no answer within {ANSWER_SECONDS:g} s"]
    except (OSError, ValueError) as error:
        return [getattr(error, "strerror", None) or first_line(error).rstrip(".")]
    if len(header) < FRAME_HEADER_BYTES or header[3] != SETTINGS_FRAME:
        return ["the server there is not Ray"]
    return []


def _host_and_port(address: str) -> tuple[str, int]:
    if address == "auto":
        from ray._private.services import canonicalize_bootstrap_address_or_die

        address = canonicalize_bootstrap_address_or_die("auto")
    host, separator, port = address.rpartition("://")[2].partition("/")[0].rpartition(":")
    if not separator:
        return port, DEFAULT_PORT
    if not port.isdecimal() or not 0 < int(port) < 1 << 16:
        raise ValueError(f"{port!r} is not a port")
    return host.strip("[]"), int(port)
