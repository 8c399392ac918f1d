"""A process that has imported libraries and forks commands, which start at once in surroundings that a test chooses."""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import types
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).parents[2]
POLL_SECONDS = 0.01
FILE_BYTES = 8_000


@dataclass(frozen=True)
class Ended:
    """A command that has ended: its exit status, negative for a signal, and the text that it wrote."""

    status: int
    output: str
    errors: str


class Forks:
    """Starts commands in the forking process.

    Surroundings: "closed" (standard output and errors), "no reader" (of standard output), "full" (standard output is
    /dev/full), "small files" (none above `FILE_BYTES`), "nohup".
    """

    def __init__(self, server: subprocess.Popen[str], folder: Path) -> None:
        self._server, self._folder, self._count = server, folder, 0

    def start(
        self, arguments: Sequence[object], surroundings: str = "", environment: Mapping[str, str] | None = None
    ) -> Command:
        """Start `codectok` with `arguments`."""
        words = [str(argument) for argument in arguments]
        return self._start({"arguments": words, "surroundings": surroundings, "environment": environment or {}})

    def run_in(self, folder: Path, arguments: Sequence[str]) -> Ended:
        """Run the Python interpreter's `-m codectok ...` or `-c program` in `folder` to its end."""
        kind, text, *rest = arguments
        asked = {"program": text} if kind == "-c" else {"arguments": rest}
        return self._start({**asked, "surroundings": "", "environment": {}, "folder": str(folder)}).wait(600)

    def run(
        self, arguments: Sequence[object], surroundings: str = "", environment: Mapping[str, str] | None = None
    ) -> Ended:
        """Run `codectok` with `arguments` to its end."""
        return self.start(arguments, surroundings, environment).wait()

    def poll(self, process: int) -> int | None:
        """Exit status of a process; None while it runs."""
        status = self._ask({"poll": process})
        return None if status == "running" else int(status)

    def _start(self, asked: Mapping[str, Any]) -> Command:
        self._count += 1
        log = self._folder / f"{self._count}"
        return Command(self, self._ask({**asked, "log": str(log)}), log)

    def _ask(self, question: Mapping[str, Any]) -> Any:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps(question) + "\n")
        self._server.stdin.flush()
        return json.loads(self._server.stdout.readline())


@dataclass
class Command:
    """A command that runs."""

    forks: Forks
    process: int
    log: Path
    status: int | None = None

    def is_running(self) -> bool:
        """True until it has ended."""
        if self.status is None:
            self.status = self.forks.poll(self.process)
        return self.status is None

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        os.kill(self.process, number)

    def wait_for(self, folder: Path, pattern: str, seconds: float = 60.0) -> None:
        """Wait until a file that fits `pattern` is in `folder`."""
        deadline = time.monotonic() + seconds
        while not any(folder.glob(pattern)):
            assert self.is_running(), self.log.with_suffix(".err").read_text()
            assert time.monotonic() < deadline, f"{folder} got no {pattern}"
            time.sleep(POLL_SECONDS / 5)

    def wait(self, seconds: float = 120.0) -> Ended:
        """Wait for its end."""
        deadline = time.monotonic() + seconds
        while self.is_running():
            if time.monotonic() > deadline:
                self.send(signal.SIGKILL)
                raise AssertionError("the command does not end")
            time.sleep(POLL_SECONDS)
        assert self.status is not None
        texts = [self.log.with_suffix(suffix).read_text() for suffix in (".out", ".err")]
        return Ended(self.status, texts[0], texts[1])


@contextmanager
def forking_process(folder: Path, everything: bool = False) -> Iterator[Forks]:
    """Start the forking process; it ends with the context.

    Args:
        folder: for logs.
        everything: import all of codectok, and the parts of libraries that commands use, not only the slowest ones.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.helpers.forks", *(["everything"] if everything else [])],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env=environment,
        text=True,
    )
    try:
        yield Forks(server, folder)
    finally:
        server.kill()
        server.communicate()


def _serve() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    import ray  # noqa: F401
    import torch.utils.tensorboard  # noqa: F401

    if "everything" in sys.argv:
        import_everything()
    for line in sys.stdin:
        asked = json.loads(line)
        answers.write(json.dumps(_poll(asked["poll"]) if "poll" in asked else _fork(asked, answers)) + "\n")
        answers.flush()


def import_everything() -> None:
    """Import all of codectok, and libraries that it imports inside functions; none of their threads may run here."""
    import ray  # noqa: F401
    import tensorboard.backend.event_processing.event_accumulator  # noqa: F401
    import torch.utils.tensorboard  # noqa: F401
    from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2ForCausalLM  # noqa: F401

    import codectok

    for module in pkgutil.walk_packages(codectok.__path__, "codectok."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)


def _poll(process: int) -> int | str:
    found, status = os.waitpid(process, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if found else "running"


def _fork(asked: Mapping[str, Any], answers: IO[str]) -> int:
    process = os.fork()
    if process:
        return process
    status = 70
    try:
        os.close(answers.fileno())
        os.setsid()
        _surround(asked["log"], asked["surroundings"], asked["environment"])
        if "folder" in asked:
            os.chdir(asked["folder"])
            sys.path.insert(0, "")
        _run(asked)
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        status = _flush(status)
        os._exit(status)


def _run(asked: Mapping[str, Any]) -> None:
    if "program" in asked:
        sys.argv = ["-c"]
        sys.modules["__main__"] = main_module = types.ModuleType("__main__")
        exec(compile(asked["program"], "<string>", "exec"), main_module.__dict__)
        return
    sys.argv = ["codectok", *asked["arguments"]]
    from codectok.cli.main import main

    main()


def _flush(status: int) -> int:
    """End as Python does: flush, and exit with 120 if that fails."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            traceback.print_exc()
            status = 120
    return status


def _surround(log: str, surroundings: str, environment: Mapping[str, str]) -> None:
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for descriptor, suffix in ((1, ".out"), (2, ".err")):
        os.dup2(os.open(log + suffix, os.O_WRONLY | os.O_CREAT), descriptor)
    for name, value in environment.items():
        if value:
            os.environ[name] = value
        else:
            os.environ.pop(name, None)
    tempfile.tempdir = None
    if surroundings == "closed":
        os.close(1)
        os.close(2)
        sys.stdout = sys.stderr = None
    elif surroundings == "no reader":
        read_end, write_end = os.pipe()
        os.close(read_end)
        os.dup2(write_end, 1)
    elif surroundings == "full":
        os.dup2(os.open("/dev/full", os.O_WRONLY), 1)
    elif surroundings == "small files":
        resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_BYTES, FILE_BYTES))
    elif surroundings == "nohup":
        signal.signal(signal.SIGHUP, signal.SIG_IGN)


if __name__ == "__main__":
    _serve()
