"""The Ray that a job starts ends with its driver, and a job does not wait for a Ray that has died."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import soundfile

from codectok.errors import CodectokError
from codectok.pipelines.engine.executors import own_ray, ray_address, ray_watch
from codectok.pipelines.engine.executors.ray_address import check_answer, cluster_address
from codectok.pipelines.engine.executors.watchdog import OWNER, _in_list_of_processes, processes_of
from codectok.train.signals import stop_on_interrupt
from tests.helpers.audio import tone
from tests.helpers.killing import descendants

SECONDS_TO_END = 10.0
# A parent that marks its children as Ray's processes, tells their owner, and waits.
DRIVER = """
import subprocess, sys, time, os
from codectok.pipelines.engine.executors import own_ray
with own_ray._watchdog("owner-%s" % os.getpid()):
    with own_ray._environment({own_ray.watchdog.OWNER: "owner-%s" % os.getpid()}):
        child = "import subprocess, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        child += " subprocess.Popen(['sleep', '60'], start_new_session=True); time.sleep(60)"
        subprocess.Popen([sys.executable, "-c", child])
    other = subprocess.Popen(["sleep", "60"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    if "fork" in sys.argv and os.fork() == 0:
        time.sleep(60)
        os._exit(0)
    while len(own_ray.watchdog.processes_of("owner-%s" % os.getpid())) < 2:
        time.sleep(0.05)
    print("owner-%s" % os.getpid(), other.pid, flush=True)
    if "end" not in sys.argv:
        time.sleep(60)
"""


def wait_until(true: Callable[[], bool], seconds: float) -> bool:
    """Wait until `true()`, at most for `seconds`; returns its last value."""
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.05)
    return true()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGHUP])
@pytest.mark.parametrize("way", ["plain", "fork", "group"])
def test_marked_processes_end_with_their_driver(number: signal.Signals, way: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", DRIVER, way], stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as driver:
        assert driver.stdout is not None
        owner, other = driver.stdout.readline().split()
        assert len(processes_of(owner)) == 2
        (os.killpg if way == "group" else os.kill)(driver.pid, number)
        assert wait_until(lambda: not processes_of(owner), SECONDS_TO_END)
        if way != "group":
            os.kill(int(other), signal.SIGKILL)  # raises if it was ended as well
        subprocess.run(["pkill", "-KILL", "-g", str(driver.pid)], check=False)


def test_marked_processes_end_with_the_context() -> None:
    done = subprocess.run([sys.executable, "-c", DRIVER, "end"], capture_output=True, text=True, check=True)
    owner, other = done.stdout.split()
    os.kill(int(other), signal.SIGKILL)
    assert not processes_of(owner)


@pytest.mark.skipif(shutil.which("ps") is None, reason="needs ps")
def test_list_of_processes_finds_marked_ones() -> None:
    with subprocess.Popen(["sleep", "60"], env={**os.environ, OWNER: "mine"}) as process:
        assert wait_until(lambda: set(_in_list_of_processes(f"{OWNER}=mine")) == {process.pid}, 5)
        assert not set(_in_list_of_processes(f"{OWNER}=min"))
        process.kill()


# Starts a Ray with a worker, and waits.
OWN_RAY = """
import ray
from codectok.pipelines.engine.executors.ray_cluster import ray_session
with ray_session(None, 1):
    ray.get(ray.remote(lambda: None).remote())
    print("ready", flush=True)
    input()
"""


def listeners(processes: set[int]) -> set[str]:
    """Return the addresses where processes accept connections, as ADDRESS:PORT of Linux' tables."""
    sockets = set()
    for process in processes:
        for entry in Path(f"/proc/{process}/fd").glob("*"):
            with suppress(FileNotFoundError):
                sockets.add(str(entry.readlink()))
    rows = [row.split() for table in ("tcp", "tcp6") for row in Path(f"/proc/net/{table}").read_text().splitlines()[1:]]
    return {row[1] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in sockets}


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="needs Linux")
def test_ray_of_our_own_listens_on_loopback_only() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    with subprocess.Popen(
        [sys.executable, "-c", OWN_RAY], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as driver:
        assert driver.stdout is not None
        assert driver.stdout.readline() == "ready\n"
        found = listeners({driver.pid, *descendants(driver.pid)})
        driver.communicate("\n")
    assert len(found) > 3
    loopback = ("0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000")
    assert not {address for address in found if address.partition(":")[0] not in loopback}


class Endable:
    """A process that has ended or not, as `Popen` tells."""

    def __init__(self) -> None:
        self.pid, self.ended = 1, False

    def poll(self) -> int | None:
        return -9 if self.ended else None


@pytest.mark.parametrize("name", ["raylet", "gcs_server"])
def test_death_of_ray_interrupts_the_main_thread(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_watch, "SIGNAL_SECONDS", 0.1)
    monkeypatch.setattr(own_ray, "POLL_SECONDS", 0.05)
    process = Endable()
    ray = own_ray.OwnRay("nothing", {name: process})
    before = signal.getsignal(signal.SIGINT)
    ray.check()
    with pytest.raises(ray_watch.LostRayError, match="has died") as error, ray.watch():
        process.ended = True
        wait_until(lambda: False, 5)  # one long sleep would not be interrupted
    ray.end()
    assert error.value.exit_code == 1
    assert signal.getsignal(signal.SIGINT) is before


def test_interruption_stays_an_interruption_while_ray_is_watched() -> None:
    ray = own_ray.OwnRay("nothing", {"raylet": Endable()})
    with pytest.raises(KeyboardInterrupt), ray.watch():
        signal.raise_signal(signal.SIGINT)
    ray.end()


@pytest.fixture
def silent_server() -> Iterator[str]:
    """Address of a server that accepts connections and says nothing, as a stopped process does."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1:1", "127.0.0.1", "localhost:1", "ray://127.0.0.1:1", "[::1]:1", "no-host.invalid:6379", "h:port", ":0"],
)
def test_cluster_that_is_not_there_is_one_sentence(address: str) -> None:
    started = time.monotonic()
    with pytest.raises(CodectokError, match=re.escape(f"could not be reached at {address}: ")) as error:
        check_answer(address)
    assert time.monotonic() - started < 30
    assert "\n" not in str(error.value)


def test_cluster_that_does_not_answer_is_one_sentence(silent_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_address, "ANSWER_SECONDS", 0.5)
    with pytest.raises(CodectokError, match="no answer within"):
        check_answer(silent_server)


def test_local_is_no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "local")
    assert cluster_address(None) is None
    monkeypatch.setenv("RAY_ADDRESS", "")
    assert cluster_address(None) is None
    assert cluster_address("other:1") == "other:1"


@pytest.mark.parametrize("verb", ["shard", "train"])
def test_verbs_tell_a_missing_cluster(verb: str, tmp_path: Path) -> None:
    write_corpus(tmp_path / "in", 2, 3)
    command = ["shard", "in", "out"]
    if verb == "train":
        assert run_codectok(tmp_path, "shard", "in", "shards", "--engine", "local").returncode == 0
        command = ["train", "nano", "data.shards=shards", "output=out", "steps=1", "data.batch_size=1"]
    done = run_codectok(tmp_path, *command, RAY_ADDRESS="127.0.0.1:1")
    assert done.returncode == 1, done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("Error: Ray could not be reached at 127.0.0.1:1: ")
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds Ray's processes in /proc")
@pytest.mark.parametrize(
    ("victim", "number"),
    [
        ("driver", signal.SIGKILL),
        ("raylet", signal.SIGKILL),
        pytest.param("gcs_server", signal.SIGKILL, marks=pytest.mark.slow),
        pytest.param("driver", signal.SIGHUP, marks=pytest.mark.slow),
        pytest.param("group", signal.SIGTERM, marks=pytest.mark.slow),
    ],
)
def test_ray_ends_with_its_driver_and_the_job_with_its_ray(victim: str, number: signal.Signals, tmp_path: Path) -> None:
    write_corpus(tmp_path / "in", 6, 60)
    command = [sys.executable, "-m", "codectok", "shard", "in", "out", "--workers", "1", "--shard-seconds", "120"]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    with (tmp_path / "error").open("w") as error:
        driver = subprocess.Popen(command, cwd=tmp_path, stderr=error, start_new_session=True, env=environment)
    attempts = tmp_path / "out" / "_codectok" / "tmp"
    assert wait_until(lambda: any(attempts.rglob("*-*-*")), 120)
    owner = owner_of_child(driver.pid)
    marked = processes_of(owner)
    assert marked
    if victim == "group":
        os.killpg(driver.pid, number)
    else:
        os.kill(driver.pid if victim == "driver" else process_called(victim, marked), number)
    code = driver.wait(30)
    assert wait_until(lambda: not processes_of(owner), SECONDS_TO_END)
    told = (tmp_path / "error").read_text()
    assert "Traceback" not in told
    if number == signal.SIGKILL and victim != "driver":
        assert code == 1
        assert told.splitlines()[-1].startswith("Error: Ray has died"), told
        assert told.count("Error:") == 1
    elif number != signal.SIGKILL:
        assert code == 130, told
        assert told.splitlines()[-1] == "Error: Interrupted."
    assert run_codectok(tmp_path, *command[3:], "--engine", "local").returncode == 0


def owner_of_child(process: int) -> str:
    """Owner that marks the processes of the Ray whose driver is `process`."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            variables = (folder / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        found = [text for text in variables if text.startswith(OWNER.encode())]
        if parent == process and found:
            return found[0].decode().partition("=")[2]
    raise AssertionError("no marked child")


def process_called(name: str, processes: set[int]) -> int:
    return next(p for p in processes if name in Path(f"/proc/{p}/cmdline").read_text().split("\0")[0])


def write_corpus(folder: Path, files: int, seconds: float) -> None:
    folder.mkdir()
    for number in range(files):
        soundfile.write(folder / f"{number:02d}.wav", tone(seconds, 24_000, 200 + 10 * number), 24_000)


def run_codectok(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "codectok", *arguments]
    environment = {**os.environ, **variables}
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment, check=False)


def test_hangup_stops_training_unless_it_is_ignored() -> None:
    with stop_on_interrupt() as event:
        signal.raise_signal(signal.SIGHUP)
        assert event.is_set()
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_on_interrupt() as event:
            signal.raise_signal(signal.SIGHUP)
            assert not event.is_set()
    finally:
        signal.signal(signal.SIGHUP, before)
