"""Hosts made of this machine: a host has its own address, name, processes and folder of Ray, and shares the disk.

A host is a set of Linux namespaces, held by one process: they end with it, and so do all processes and links in them.
Without the right to create namespaces, hosts are groups of processes on loopback, whose network cannot be cut.
"""

from __future__ import annotations

import ctypes
import functools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from .clusters import free_port
from .killing import descendants
from .ray_workers import name_of

ROOT = Path(__file__).parents[2]
NETWORK = "10.77.0"
START_SECONDS = 120.0
POLL_SECONDS = 0.1
RAY_PORT = 6379
# `nsenter` stops itself once its child has stopped, perhaps after the signal to continue: a shell keeps them apart.
SHELL = ["sh", "-c", '"$@"; exit $?', "sh"]
ENTERING = {"nsenter", "sh"}
NAMESPACES = ["unshare", "--net", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc"]
# Nodes start processes only when they are needed.
RAY_SETTINGS = {
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_enable_worker_prestart": "0",
    "RAY_num_prestart_python_workers": "0",
    "RAY_prestart_worker_first_driver": "0",
    # Memory belongs to all hosts together.
    "RAY_memory_monitor_refresh_ms": "0",
    # So do its cores: workers would wait for all that else runs on the machine.
    "RAY_worker_niceness": "0",
    "RAY_TMPDIR": "/tmp",
    "OMP_NUM_THREADS": "1",
}
_PR_SET_PDEATHSIG = 1


@functools.cache
def problem_of_namespaces() -> str | None:
    """Return the reason why this machine allows no hosts with networks; None if it does."""
    missing = [name for name in ("unshare", "nsenter", "ip", "mount") if shutil.which(name) is None]
    if missing:
        return f"there is no {missing[0]}"
    script = "ip link add ct0 type bridge && mount -t tmpfs tmpfs /tmp"
    done = subprocess.run([*NAMESPACES, "sh", "-c", script], capture_output=True, text=True, check=False)
    return None if done.returncode == 0 else f"namespaces cannot be created: {done.stderr.strip()}"


def require_networks() -> None:
    """Skip the test if hosts have no networks."""
    problem = problem_of_namespaces()
    if problem is not None:
        pytest.skip(f"hosts have no networks: {problem}")


class Host:
    """A host, on which commands and one node of Ray run.

    Attributes:
        address: its IP address.
        name: its host name.
    """

    def __init__(self, hosts: Hosts, number: int) -> None:
        self._hosts, self._number = hosts, number
        self._processes: list[subprocess.Popen[str]] = []
        self._holder: subprocess.Popen[str] | None = None
        self._node: subprocess.Popen[str] | None = None
        self.name = f"ct{number}"
        self.address = f"{NETWORK}.{number}" if hosts.have_networks else "127.0.0.1"
        self.log = hosts.folder / f"{self.name}.log"
        self.switch_on()

    def switch_on(self) -> None:
        """Start the host, or start it again after `kill`."""
        if self._hosts.have_networks:
            self._holder = self._hold()
            self._hosts.connect(_only_child(self._holder.pid), self._number)

    def start(self, command: Sequence[str | Path], **environment: str) -> subprocess.Popen[str]:
        """Start a command on this host."""
        enter: list[str] = []
        if self._holder is not None:
            enter = ["nsenter", "--all", f"--target={_only_child(self._holder.pid)}", *SHELL]
        process = subprocess.Popen(
            [*enter, *map(str, command)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, start_new_session=True,
            env={**os.environ, **RAY_SETTINGS, "PYTHONPATH": str(ROOT), **environment}, preexec_fn=_end_with_parent,
        )  # fmt: skip
        self._processes.append(process)
        return process

    def start_node(self, head: str | None = None, cores: int = 1) -> str:
        """Start a node of Ray with some cores, the head if `head` is None, and return the address of the head."""
        port = RAY_PORT if self._hosts.have_networks else free_port()
        own = ["--head", f"--port={port}", "--include-dashboard=false"] if head is None else [f"--address={head}"]
        own += [] if self._hosts.have_networks or head else [f"--temp-dir={self._hosts.folder / self.name}"]
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", *own, "--block", f"--num-cpus={cores}"]
        command += [f"--node-ip-address={self.address}", "--object-store-memory=80000000", "--disable-usage-stats"]
        before = self.log.stat().st_size if self.log.exists() else 0
        process = self._node = self.start(["sh", "-c", 'exec "$@" >>"$0" 2>&1', self.log, *command])
        deadline = time.monotonic() + START_SECONDS
        while b"Ray runtime started" not in self.log.read_bytes()[before:] if self.log.exists() else True:
            assert process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, f"no node on {self.name}: {self.log.read_text()}"
            time.sleep(POLL_SECONDS)
        return head or f"{self.address}:{port}"

    def runs_node(self) -> bool:
        """True if the node of Ray runs that `start_node` has started."""
        return self._node is not None and self._node.poll() is None

    @property
    def node(self) -> int:
        """Process of the node of Ray, which has started all workers of jobs on this host."""
        assert self._node is not None, "it was started"
        return self._node.pid

    def kill_node(self) -> None:
        """Kill the node of Ray, and no other process of the host."""
        assert self._node is not None, "it was started"
        kill_tree(self._node)

    def kill(self) -> None:
        """End the host, as a power cut: all of its processes at once, and its links."""
        if self._holder is not None:
            self._holder.kill()
            self._holder.communicate()
            self._hosts.disconnect(self._number)
            self._holder = None
        for process in self._processes:
            kill_tree(process)
            process.communicate()
        self._processes.clear()

    def set_link(self, state: str) -> None:
        """Set the link of the host "up" or "down"; its processes live on."""
        self._hosts.set_link(self._number, state)

    def _hold(self) -> subprocess.Popen[str]:
        names = self._hosts.folder / "hosts"
        script = (
            f"mount -t tmpfs tmpfs /tmp/ray && mount --bind {names} /etc/hosts && hostname {self.name}"
            " && ip link set lo up && echo ready && sleep infinity & wait"
        )
        return _hold(script)


class Hosts:
    """Hosts that see each other and a shared disk.

    Args:
        folder: short path for logs.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.have_networks = problem_of_namespaces() is None
        self._hosts: list[Host] = []
        self._switch: subprocess.Popen[str] | None = None
        if self.have_networks:
            Path("/tmp/ray").mkdir(exist_ok=True)
            names = [f"{NETWORK}.{number} ct{number}\n" for number in range(1, 250)]
            (folder / "hosts").write_text("127.0.0.1 localhost\n" + "".join(names))
            self._switch = _hold(
                "ip link add br0 type bridge && ip link set br0 up && echo ready && sleep infinity & wait"
            )

    def add(self) -> Host:
        """Add a host, which runs nothing yet."""
        host = Host(self, len(self._hosts) + 1)
        self._hosts.append(host)
        return host

    def connect(self, process: int, number: int) -> None:
        """Connect the network namespace of `process` to the others."""
        self._in_switch(f"link add veth{number} type veth peer name eth0 netns {process}")
        self._in_switch(f"link set veth{number} master br0 up")
        enter = ["nsenter", "--net", f"--target={process}", "ip"]
        for arguments in (f"address add {NETWORK}.{number}/24 dev eth0", "link set eth0 up"):
            subprocess.run([*enter, *arguments.split()], check=True)

    def disconnect(self, number: int) -> None:
        """Remove the link of a host; the system removes it as well, a moment after the host has ended."""
        self._in_switch(f"link delete veth{number}", check=False)

    def set_link(self, number: int, state: str) -> None:
        """Set the link of a host "up" or "down"."""
        self._in_switch(f"link set veth{number} {state}")

    def end(self) -> None:
        """End all hosts."""
        for host in self._hosts:
            host.kill()
        if self._switch is not None:
            self._switch.kill()
            self._switch.communicate()

    def _in_switch(self, arguments: str, check: bool = True) -> None:
        assert self._switch is not None, "hosts without networks have no links"
        enter = ["nsenter", "--net", f"--target={_only_child(self._switch.pid)}", "ip"]
        subprocess.run([*enter, *arguments.split()], check=check, capture_output=not check)


@contextmanager
def running_hosts() -> Iterator[Hosts]:
    """Make hosts while the context lasts."""
    with tempfile.TemporaryDirectory(prefix="ct-", dir="/tmp") as folder:
        hosts = Hosts(Path(folder))
        try:
            yield hosts
        finally:
            hosts.end()


def kill_tree(process: subprocess.Popen[str]) -> None:
    """Kill a command and all that it has started, unless it has ended."""
    if process.poll() is not None:
        return  # its number may be another's by now
    for one in [*descendants(process.pid), process.pid]:
        try:
            os.kill(one, signal.SIGKILL)
        except ProcessLookupError:
            continue


def send_signal(process: subprocess.Popen[str], number: signal.Signals) -> None:
    """Send a signal to a command that `Host.start` has started, and to its children."""
    for one in descendants(process.pid) | {process.pid}:
        if name_of(one).partition(" ")[0] not in ENTERING:
            os.kill(one, number)


def _hold(script: str) -> subprocess.Popen[str]:
    """Start a process in new namespaces, and wait until its script prints a line."""
    holder = subprocess.Popen(
        [*NAMESPACES, "sh", "-c", script], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        preexec_fn=_end_with_parent,
    )  # fmt: skip
    assert holder.stdout is not None, "it is a pipe"
    line = holder.stdout.readline()
    assert line == "ready\n", line
    return holder


def _only_child(process: int) -> int:
    [child] = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return int(child)


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
