"""Ray clusters as processes of this machine: a head, and further nodes."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

START_SECONDS = 90.0
# Last numbers of addresses of nodes.
_numbers = itertools.count(2)


def free_port() -> int:
    """A port of loopback that nothing uses now."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port: int = server.getsockname()[1]
        return port


@dataclass(frozen=True)
class RayNode:
    """A node of a cluster, with one core.

    Attributes:
        address: of the head.
        process: that started the node, and waits.
    """

    address: str
    process: subprocess.Popen[bytes]

    def kill(self) -> None:
        """Kill all processes of the node, as if its machine lost power."""
        _kill_tree(self.process.pid)
        self.process.wait()


@contextmanager
def ray_head(folder: Path, environment: Mapping[str, str], *options: str) -> Iterator[str]:
    """Run the head of a cluster with one core, and yield its address.

    Args:
        folder: short path for the cluster's files.
        environment: variables of the head; others of this process are kept, apart from the ones of a token.
        options: of `ray start`.
    """
    port = free_port()
    dashboard = () if any("dashboard" in option for option in options) else ("--include-dashboard=false",)
    own = ("--head", f"--port={port}", "--node-ip-address=127.0.0.1", f"--temp-dir={folder}", *dashboard)
    with _node(f"127.0.0.1:{port}", folder / "head.log", environment, [*own, *options]) as node:
        yield node.address


@contextmanager
def ray_node(address: str, folder: Path, environment: Mapping[str, str], *options: str) -> Iterator[RayNode]:
    """Run another node of the cluster at `address`, on an address of loopback that only it has.

    Args:
        address: of the head.
        folder: files of the cluster.
        environment: variables of the node, as for `ray_head`.
        options: of `ray start`.
    """
    number = next(_numbers)
    own = (f"--address={address}", f"--node-ip-address=127.0.0.{number}")
    with _node(address, folder / f"node-{number}.log", environment, [*own, *options]) as node:
        yield node


@contextmanager
def _node(address: str, log: Path, environment: Mapping[str, str], options: Sequence[str]) -> Iterator[RayNode]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH_")}
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--num-cpus=1", "--disable-usage-stats"]
    command += ["--object-store-memory=80000000", *options]
    with log.open("w") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, env={**inherited, **environment}, start_new_session=True
        )
        node = RayNode(address, process)
        try:
            _wait_for(process, log)
            yield node
        finally:
            node.kill()


def _wait_for(process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while "Ray runtime started" not in log.read_text():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, f"no node of Ray: {log.read_text()}"
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
