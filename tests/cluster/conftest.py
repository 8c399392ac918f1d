"""Clusters of several hosts, commands that join them, and outputs of one machine to compare with."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile

from codectok import Codec
from tests.helpers.audio import tone
from tests.helpers.exports import write_parts
from tests.helpers.hosts import ROOT, Host, Hosts, kill_tree, running_hosts
from tests.helpers.jobs import digests
from tests.helpers.killing import descendants

N_FILES, FILE_SECONDS, RATE = 24, 30.0, 8000
UNIT_SECONDS = 6.0  # about a file, as estimated from its size
RUN_SECONDS = 200.0
POLL_SECONDS = 0.05
RESUME_SECONDS = 0.3  # in which a driver that was stopped gives units to its workers


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
        unit = f"--part-seconds={UNIT_SECONDS}"
        options = {
            "shard": ["shard", corpus, str(output), f"--shard-seconds={UNIT_SECONDS}"],
            "tokenize": ["tokenize", corpus, str(output), f"--codec={codec}", "--device=cpu", unit],
            "export": ["export", "sequences", str(self._inputs / "tokens"), str(output), "--offset=400", "--eos=0"],
            "evaluate": ["evaluate", corpus, str(output), f"--codec={codec}", "--device=cpu", "--metrics=si_sdr"],
        }[verb]
        more = {
            "export": ["--part-megabytes=0.002"],
            "evaluate": ["--controls=none", "--no-stability", f"--unit-seconds={UNIT_SECONDS}"],
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
    """Nodes of a Ray cluster on hosts.

    Args:
        hosts: to which hosts are added.
        cores: cores of each node; the first one is the head.
    """

    def __init__(self, hosts: Hosts, cores: Sequence[int]) -> None:
        self._cores = cores
        self.nodes: list[Host] = []
        self.address = ""
        for n_cores in cores:
            host = hosts.add()
            self.address = host.start_node(self.address or None, n_cores)
            self.nodes.append(host)

    @property
    def n_cores(self) -> int:
        """Cores of all nodes."""
        return sum(self._cores)

    def heal(self) -> None:
        """Start lost nodes again."""
        for host, cores in list(zip(self.nodes, self._cores, strict=True))[1:]:
            if not host.runs_node():
                host.kill()
                host.switch_on()
                host.start_node(self.address, cores)

    def start_head(self) -> None:
        """Start the first host again after it was killed, as the head of a new cluster at the same address."""
        self.nodes[0].kill()
        self.nodes[0].switch_on()
        self.address = self.nodes[0].start_node(cores=self._cores[0])

    def restart(self) -> None:
        """Start all hosts again, with a new cluster."""
        for host in self.nodes:
            host.kill()
        self.start_head()
        self.heal()

    def start(self, command: Sequence[str], host: Host, **environment: str) -> Run:
        """Start a command that joins this cluster from `host`."""
        return Run(host, [*command, f"--address={self.address}"], environment)


class Run:
    """A command that runs on a host."""

    def __init__(self, host: Host, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self.process = host.start(command, **environment)

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

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to the command and its children, and to `nsenter`, which stops with its child."""
        for process in [*descendants(self.process.pid), self.process.pid]:
            os.kill(process, number)

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


class TwoJobs:
    """Two jobs that run in one cluster at once, from drivers on the same host."""

    VERBS = ("tokenize", "evaluate")

    def __init__(self, jobs: Jobs, cluster: Cluster, folder: Path) -> None:
        self._jobs, self._cluster = jobs, cluster
        self._outputs = {verb: folder / verb for verb in self.VERBS}
        self._runs: dict[str, Run] = {}

    def start(self, host: Host, **environment: str) -> None:
        """Start both on half of the cluster's cores each; `environment` is of the drivers."""
        workers = f"--workers={self._cluster.n_cores // 2}"
        for verb, output in self._outputs.items():
            command = [*self._jobs.command(verb, output), workers]
            self._runs[verb] = self._cluster.start(command, host, **environment)

    def wait_for_units(self) -> None:
        """Wait until both have finished a unit in this run, and assert that neither has finished all.

        The driver of the job that is ahead is stopped until the other one has finished a unit as well.
        """
        before = self.finished()
        waiting = set(self.VERBS)

        def look() -> bool:
            finished = self.finished()
            for verb in [verb for verb in waiting if finished[verb] > before[verb]]:
                waiting.remove(verb)
                self._runs[verb].send_signal(signal.SIGSTOP)
            return not waiting

        self._runs[self.VERBS[0]].wait_until(look, "a unit of both")
        for run in self._runs.values():
            run.send_signal(signal.SIGCONT)
        time.sleep(RESUME_SECONDS)
        finished = self.finished()
        assert all(finished[verb] < self._jobs.n_units(verb) for verb in self.VERBS), finished

    def finished(self) -> dict[str, int]:
        """Count the units of each job that are complete."""
        return {verb: n_records(output) for verb, output in self._outputs.items()}

    def kill(self) -> None:
        """Kill both drivers."""
        for run in self._runs.values():
            run.kill()

    def end(self, seconds: float = RUN_SECONDS) -> list[tuple[int, str]]:
        """Wait for the end of both; return their exit statuses, and all that they have printed."""
        return [run.end(seconds) for run in self._runs.values()]

    def assert_finished(self) -> None:
        """Wait for the end of both, and assert that their outputs have the bytes of one machine."""
        for status, told in self.end():
            assert status == 0, told
        for verb, output in self._outputs.items():
            assert digests(output) == self._jobs.expected(verb)


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


@pytest.fixture
def two_jobs(jobs: Jobs, cluster: Cluster, tmp_path: Path) -> TwoJobs:
    """Two jobs on the `cluster` of a module."""
    return TwoJobs(jobs, cluster, tmp_path)
