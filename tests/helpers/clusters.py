"""Heads of Ray clusters as processes of this machine."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

START_SECONDS = 90.0


def free_port() -> int:
    """A port of loopback that nothing uses now."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port: int = server.getsockname()[1]
        return port


@contextmanager
def ray_head(folder: Path, environment: Mapping[str, str], *options: str) -> Iterator[str]:
    """Run the head of a cluster with one core, and yield its address.

    Args:
        folder: short path for the cluster's files.
        environment: variables of the head; others of this process are kept, apart from the ones of a token.
        options: further options of `ray start`.
    """
    port = free_port()
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH_")}
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", f"--port={port}"]
    command += ["--node-ip-address=127.0.0.1", "--include-dashboard=false", "--num-cpus=1", "--disable-usage-stats"]
    command += ["--object-store-memory=80000000", f"--temp-dir={folder}", *options]
    log = folder / "head.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, env={**inherited, **environment}, start_new_session=True
        )
        try:
            _wait_for(port, process, log)
            yield f"127.0.0.1:{port}"
        finally:
            _kill_tree(process.pid)
            process.wait()


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while "Ray runtime started" not in log.read_text():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, f"no head at {port}: {log.read_text()}"
        time.sleep(0.2)


def _kill_tree(pid: int) -> None:
    """Kill a process and all that it has started, also those in other sessions."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, IndexError):
                continue  # it has ended
            children.setdefault(parent, []).append(int(entry.name))
    found, waiting = [], [pid]
    while waiting:
        found.append(waiting.pop())
        waiting += children.get(found[-1], [])
    for one in found:
        try:
            os.kill(one, signal.SIGKILL)
        except ProcessLookupError:
            continue
