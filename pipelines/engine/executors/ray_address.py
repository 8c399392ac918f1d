"""Address of a Ray cluster: where it is named, and if a cluster answers there."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from typing import Any

from codectok.errors import CodectokError, first_line

from . import ray_probe
from .ray_token import token_problem, use_token

ANSWER_SECONDS = 10.0
# Limits for the import of Ray, which a slow disk delays, and then for the answer of the head.
IMPORT_SECONDS, PROBE_SECONDS = 30.0, 8.0
CLIENT_SCHEME = "ray://"
DEFAULT_PORT, CLIENT_PORT = 6379, 10001
# Every server of Ray speaks gRPC, thus HTTP/2: it answers this greeting with its settings.
GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
SETTINGS_FRAME = 4
FRAME_HEADER_BYTES = 9


def cluster_address(address: str | None) -> str | None:
    """Address of the cluster to join: `address`, or `RAY_ADDRESS`; None to start Ray on this machine."""
    found = address or os.environ.get("RAY_ADDRESS")
    if found and found.startswith(CLIENT_SCHEME) and ":" not in found.removeprefix(CLIENT_SCHEME).rpartition("]")[2]:
        return f"{found.rstrip('/')}:{CLIENT_PORT}"
    return None if found == "local" else found or None


def check_answer(address: str) -> None:
    """Raise a `CodectokError` if no Ray answers at `address` within seconds, or if it cannot be joined.

    Ray itself tries for many minutes.
    """
    check_greeting(address)
    _check_cluster(address)


def check_greeting(address: str) -> None:
    """Raise a `CodectokError` if no Ray greets at `address` within seconds."""
    # If it takes longer: the search for a host's address has no time limit.
    failures: list[str | None] = [f"there is no answer within {ANSWER_SECONDS:g} s"]
    thread = threading.Thread(target=lambda: failures.append(answer_failure(address, ANSWER_SECONDS)), daemon=True)
    thread.start()
    thread.join(ANSWER_SECONDS)
    if failures[-1] is not None:
        raise CodectokError(
            f"Ray could not be reached at {address}: {failures[-1]}; start the cluster, or name another one with"
            " --address or RAY_ADDRESS."
        )


def _check_cluster(address: str) -> None:
    """Raise a `CodectokError` if the cluster refuses this machine, or has other versions.

    A cluster that asks for a token gets the one of this machine.
    """
    answer, log = _probe(address)
    if is_refusal(answer, log) and use_token():
        answer, log = _probe(address)
    problem = probe_problem(answer, log)
    if problem is not None:
        raise CodectokError(f"The Ray cluster at {address} cannot be joined: {problem}.")


def _probe(address: str) -> tuple[dict[str, Any], str]:
    """Return the answer of `ray_probe`, and its log."""
    host, port = _host_and_port(address)
    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    # -P: the folder of the program has modules with common names.
    command = [sys.executable, "-P", ray_probe.__file__, place]
    command += [ray_probe.CLIENT] if address.startswith(CLIENT_SCHEME) else []
    # Without a buffer, which would keep what follows the first line from `communicate`.
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0) as probe:
        assert probe.stdout is not None, "it is a pipe"
        importing = threading.Timer(IMPORT_SECONDS, probe.kill)
        importing.daemon = True
        importing.start()
        try:
            while (line := probe.stdout.readline()) and line.strip() != ray_probe.ASKS.encode():
                pass  # Ray may print lines of its own
            importing.cancel()
            answer, log = probe.communicate(timeout=PROBE_SECONDS)
        except subprocess.TimeoutExpired:
            probe.kill()
            raise CodectokError(
                f"The Ray cluster at {address} does not answer within {PROBE_SECONDS:g} s; look at its head, or name"
                " another one with --address or RAY_ADDRESS."
            ) from None
        finally:
            importing.cancel()
    if probe.returncode == -signal.SIGKILL and not line:
        raise CodectokError(f"Ray could not be imported within {IMPORT_SECONDS:g} s; look at the disk of this machine.")
    lines = answer.decode(errors="replace").splitlines()
    return (json.loads(lines[-1]) if lines else {}), log.decode(errors="replace")


def is_refusal(answer: Mapping[str, Any], log: str) -> bool:
    """Return True if a cluster asks for another token; Ray aborts a process that should send one, but has none."""
    return ray_probe.REFUSED in answer or (not answer and "authentication token" in log)


def probe_problem(answer: Mapping[str, Any], log: str) -> str | None:
    """Tell why a cluster cannot be joined, from the answer of `ray_probe` and its log; None if it can."""
    if answer.get(ray_probe.ANSWERED):
        return None
    versions = answer.get(ray_probe.VERSIONS)
    if versions is None:
        if is_refusal(answer, log):
            return token_problem()
        told = str(answer.get(ray_probe.OTHER) or log).strip()
        return told.splitlines()[-1].rstrip(".") if told else "it does not tell its version"
    own_ray, own_python = importlib.metadata.version("ray"), platform.python_version()
    its_ray, its_python = str(versions.get("ray_version")), str(versions.get("python_version"))
    if its_ray != own_ray:
        return f"it runs Ray {its_ray}, and this machine has Ray {own_ray}; install the same version"
    if its_python.split(".")[:2] != own_python.split(".")[:2]:
        return f"it runs Python {its_python}, and this machine has Python {own_python}; use the same version"
    return None


def answer_failure(address: str, seconds: float) -> str | None:
    """Return the reason why no Ray answers at `address` within `seconds`; None if one does."""
    try:
        host, port = _host_and_port(address)
        with socket.create_connection((host, port), seconds) as connection:
            if os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true"):
                return None
            connection.sendall(GREETING)
            header = connection.recv(FRAME_HEADER_BYTES, socket.MSG_WAITALL)
    except TimeoutError:
        return f"there is no answer within {seconds:g} s"
    except (OSError, ValueError) as error:
        return getattr(error, "strerror", None) or first_line(error).rstrip(".")
    if len(header) < FRAME_HEADER_BYTES or header[3] != SETTINGS_FRAME:
        return "the server there is not Ray"
    return None


def _host_and_port(address: str) -> tuple[str, int]:
    if address == "auto":
        from ray._private.services import canonicalize_bootstrap_address_or_die

        address = canonicalize_bootstrap_address_or_die("auto")
    host, separator, port = address.rpartition("://")[2].partition("/")[0].rpartition(":")
    if not separator:
        return port, CLIENT_PORT if address.startswith(CLIENT_SCHEME) else DEFAULT_PORT
    if not port.isdecimal() or not 0 < int(port) < 1 << 16:
        raise ValueError(f"{port!r} is not a port")
    return host.strip("[]"), int(port)
