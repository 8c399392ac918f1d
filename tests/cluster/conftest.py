"""Clusters of several hosts, commands that join them, and outputs of one machine to compare with."""

from __future__ import annotations

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
from tests.helpers.hosts import ROOT, Host, Hosts, kill_tree, running_hosts, send_signal
from tests.helpers.jobs import digests
from tests.helpers.ray_workers import LOADING, jobs_of, stop_in_units, workers_below

VERBS = ("shard", "tokenize", "export", "evaluate")
N_FILES, FILE_SECONDS, RATE = 80, 30.0, 8000
# A part of the corpus, for the slower verbs.
PARTS = {"tokenize": "[01b]*", "evaluate": "[0b]*"}
UNIT_SECONDS = 6.0  # about a file, as estimated from its size
RUN_SECONDS = 400.0  # on a machine with other work; a quiet one needs a quarter
POLL_SECONDS = 0.02


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
        codec, corpus = str(self._inputs / "codec"), str(self._inputs / "corpus" / PARTS.get(verb, ""))
        unit = f"--part-seconds={UNIT_SECONDS}"
        options = {
            "shard": ["shard", corpus, str(output), f"--shard-seconds={UNIT_SECONDS}"],
            "tokenize": ["tokenize", corpus, str(output), f"--codec={codec}", "--device=cpu", unit],
            "export": ["export", "sequences", str(self._inputs / "tokens"), str(output), "--offset=400", "--eos=0"],
            "evaluate": [
                "evaluate",
                corpus,
                str(output),
                f"--codec={codec}",
                "--device=cpu",
                "--metrics=si_sdr",
            ],
        }[verb]
        more = {
            "export": ["--part-megabytes=0.001"],
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
        self._hosts, self._cores = hosts, list[int]()
        self.nodes: list[Host] = []
        self.address = ""
        for n_cores in cores:
            self.add(n_cores)

    def add(self, cores: int) -> None:
        """Start another node."""
        host = self._hosts.add()
        self.address = host.start_node(self.address or None, cores)
        self.nodes.append(host)
        self._cores.append(cores)

    def have_loaded(self, n_workers: int) -> bool:
        """True if there are so many workers of jobs, and all have loaded their jobs."""
        names = [name for host in self.nodes if host.runs_node() for name in workers_below(host.node).values()]
        return len(names) == n_workers and not any(name.startswith(LOADING) for name in names)

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
            self.assert_runs(what)
            if time.monotonic() > deadline:
                kill_tree(self.process)
                raise AssertionError(f"{what}: not within {seconds} s: {self.process.communicate()}")
            time.sleep(POLL_SECONDS)

    def assert_runs(self, what: str) -> None:
        """Assert that the command has not ended before `what`."""
        if self.process.poll() is not None:
            raise AssertionError(f"ended before {what}: {self.process.communicate()}")

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to the command and its children."""
        send_signal(self.process, number)

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


class AllJobs:
    """Jobs of all verbs that run in one cluster at once, from drivers on the same host.

    On a host with one core, and another one with the others that they need, each has a worker on the other one.
    """

    WORKERS = 2

    def __init__(self, jobs: Jobs, cluster: Cluster, folder: Path) -> None:
        self._jobs, self._cluster = jobs, cluster
        self._outputs = {verb: folder / verb for verb in VERBS}
        self._runs: dict[str, Run] = {}

    def start(self, host: Host, **environment: str) -> None:
        """Start all on `WORKERS` workers each; `environment` is of the drivers."""
        for verb, output in self._outputs.items():
            command = [*self._jobs.command(verb, output), f"--workers={self.WORKERS}"]
            self._runs[verb] = self._cluster.start(command, host, **environment)

    def stop_in_units(self, host: Host) -> set[int]:
        """Stop workers on a host within units of each job, after each has finished a unit in this run; return them.

        The drivers of the jobs that are ahead are stopped until the other ones have finished a unit as well, and all
        workers have loaded their jobs.
        """
        before = self.finished()
        waiting = set(VERBS)

        def look() -> bool:
            finished = self.finished()
            for verb in [verb for verb in waiting if finished[verb] > before[verb]]:
                waiting.remove(verb)
                self._runs[verb].send_signal(signal.SIGSTOP)
            return not waiting

        self.wait_until(look, "a unit of each")
        n_workers = self.WORKERS * len(VERBS)
        self.wait_until(lambda: self._cluster.have_loaded(n_workers), "the start of all workers")
        for run in self._runs.values():
            run.send_signal(signal.SIGCONT)
        stopped: set[int] = set()

        def stop() -> bool:
            stopped.update(stop_in_units(host.node))
            return len(jobs_of(stopped)) == len(VERBS)

        self.wait_until(stop, "units of each on one host")
        return stopped

    def wait_until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait until a condition holds while the jobs run."""

        def look() -> bool:
            found = condition()
            for run in self._runs.values():
                run.assert_runs(what)
            return found

        self._runs[VERBS[0]].wait_until(look, what)

    def finished(self) -> dict[str, int]:
        """Count the units of each job that are complete."""
        return {verb: n_records(output) for verb, output in self._outputs.items()}

    def kill(self) -> None:
        """Kill all drivers."""
        for run in self._runs.values():
            run.kill()

    def end(self, seconds: float = RUN_SECONDS) -> list[tuple[int, str]]:
        """Wait for the end of all; return their exit statuses, and all that they have printed."""
        deadline = time.monotonic() + seconds
        return [run.end(max(1.0, deadline - time.monotonic())) for run in self._runs.values()]

    def assert_finished(self) -> None:
        """Wait for the end of all, and assert that their outputs have the bytes of one machine."""
        for status, told in self.end():
            assert status == 0, told
        for verb, output in self._outputs.items():
            assert digests(output) == self._jobs.expected(verb), verb


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
def all_jobs(jobs: Jobs, cluster: Cluster, tmp_path: Path) -> Iterator[AllJobs]:
    """Jobs of all verbs on the `cluster` of a module, which end with the test."""
    all_jobs = AllJobs(jobs, cluster, tmp_path)
    yield all_jobs
    all_jobs.kill()
