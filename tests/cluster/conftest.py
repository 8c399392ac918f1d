"""Clusters of several hosts, commands that join them, and outputs of one machine to compare with."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile

from codectok import Codec
from tests.helpers.audio import tone
from tests.helpers.exports import write_parts
from tests.helpers.hosts import ROOT, Host, Hosts, kill_tree, running_hosts
from tests.helpers.jobs import digests

N_FILES, FILE_SECONDS, RATE = 24, 20.0, 8000
RUN_SECONDS = 200.0
POLL_SECONDS = 0.05


@pytest.fixture(scope="session")
def inputs() -> Iterator[Path]:
    """A corpus, a codec and a token table on the disk that hosts share."""
    with tempfile.TemporaryDirectory(prefix="ct-inputs-") as name:
        folder = Path(name)
        (folder / "corpus").mkdir()
        for number in range(N_FILES):
            samples = tone(FILE_SECONDS, RATE, 200 + 20 * number, seed=number)
            soundfile.write(folder / "corpus" / f"{number:02d}.wav", samples, RATE)
        (folder / "corpus" / "broken.wav").write_bytes(np.random.default_rng(0).bytes(100_000))
        Codec.from_config("nano", seed=1).save_pretrained(folder / "codec")
        write_parts(folder / "tokens", 4)
        yield folder


class Jobs:
    """Commands of jobs over `inputs`, and the digests of their outputs on one machine."""

    def __init__(self, inputs: Path) -> None:
        self._inputs = inputs
        self._expected: dict[str, dict[str, str]] = {}

    def command(self, verb: str, output: Path) -> list[str]:
        """Return the command of a job that writes to `output`."""
        codec, corpus = str(self._inputs / "codec"), str(self._inputs / "corpus")
        options = {
            "shard": ["shard", corpus, str(output), "--shard-seconds=4"],
            "tokenize": ["tokenize", corpus, str(output), f"--codec={codec}", "--device=cpu", "--part-seconds=4"],
            "export": ["export", "sequences", str(self._inputs / "tokens"), str(output), "--offset=400", "--eos=0"],
            "evaluate": ["evaluate", corpus, str(output), f"--codec={codec}", "--device=cpu", "--metrics=si_sdr"],
        }[verb]
        more = {
            "export": ["--part-megabytes=0.002"],
            "evaluate": ["--controls=none", "--no-stability", "--unit-seconds=20"],
        }
        return [sys.executable, "-m", "codectok", *options, *more.get(verb, [])]

    def expected(self, verb: str) -> dict[str, str]:
        """Return the digests of the output of a run in one process, without Ray."""
        if verb not in self._expected:
            output = self._inputs / f"expected-{verb}"
            command = [*self.command(verb, output), "--engine=local"]
            done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False, timeout=RUN_SECONDS)
            assert done.returncode == 0, done.stdout + done.stderr
            self._expected[verb] = digests(output)
        return self._expected[verb]

    def n_units(self, verb: str) -> int:
        """Return the number of units of a job."""
        return sum(name.startswith("_codectok/records/") for name in self.expected(verb))


@pytest.fixture(scope="session")
def jobs(inputs: Path) -> Jobs:
    return Jobs(inputs)


class Cluster:
    """Nodes of a Ray cluster on hosts, each with one core."""

    def __init__(self, hosts: Hosts, nodes: int) -> None:
        self._hosts = hosts
        self.nodes: list[Host] = []
        self.address = ""
        for _ in range(nodes):
            self.add_node()

    def add_node(self) -> Host:
        """Add a host, and start a node on it."""
        host = self._hosts.add()
        self.address = host.start_node(self.address or None)
        self.nodes.append(host)
        return host

    def heal(self) -> None:
        """Start lost nodes again."""
        for host in self.nodes[1:]:
            if not host.runs_node():
                host.kill()
                host.switch_on()
                host.start_node(self.address)

    def start_head(self) -> None:
        """Start the first host again after it was killed, as the head of a new cluster at the same address."""
        self.nodes[0].kill()
        self.nodes[0].switch_on()
        self.address = self.nodes[0].start_node()

    def restart(self) -> None:
        """Start all hosts again, with a new cluster."""
        for host in self.nodes:
            host.kill()
        self.start_head()
        self.heal()

    def start(self, command: Sequence[str], host: Host) -> Run:
        """Start a command that joins this cluster from `host`."""
        return Run(host, [*command, f"--address={self.address}"])


class Run:
    """A command that runs on a host."""

    def __init__(self, host: Host, command: Sequence[str]) -> None:
        self.started = time.monotonic()
        self.process = host.start(command)

    def wait_until(self, condition: Callable[[], bool], what: str, seconds: float = RUN_SECONDS) -> None:
        """Wait until a condition holds while the command runs."""
        deadline = time.monotonic() + seconds
        while not condition():
            if self.process.poll() is not None:
                raise AssertionError(f"ended before {what}: {self.process.communicate()}")
            if time.monotonic() > deadline:
                kill_tree(self.process)
                raise AssertionError(f"{what}: not within {seconds} s: {self.process.communicate()}")
            time.sleep(POLL_SECONDS)

    def kill(self) -> None:
        """Kill the command with its children, as SIGKILL to the driver."""
        kill_tree(self.process)
        self.process.communicate()

    def end(self, seconds: float = RUN_SECONDS) -> tuple[int, str]:
        """Wait for the end; return the exit status and all that the command has printed, in one line."""
        try:
            output, errors = self.process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            kill_tree(self.process)
            output, errors = self.process.communicate()
            raise AssertionError(f"not within {seconds} s: {output}{errors}") from None
        return self.process.returncode, " ".join((output + errors).split())


def n_records(output: Path) -> int:
    """Count the units that are complete."""
    return sum(1 for _ in (output / "_codectok" / "records").glob("*"))


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    """Hosts of one test."""
    with running_hosts() as hosts:
        yield hosts


@pytest.fixture(scope="module")
def module_hosts() -> Iterator[Hosts]:
    """Hosts of all tests of a module."""
    with running_hosts() as hosts:
        yield hosts
