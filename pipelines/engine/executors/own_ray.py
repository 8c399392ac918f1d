"""A Ray that this process starts: it ends with this process, and its death is told at once."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from . import watchdog
from .ray_watch import RayWatch, quiet_ray

# Processes without which Ray cannot work; it starts the others again, or works without them.
VITAL = {"raylet": "raylet", "gcs_server": "GCS"}
POLL_SECONDS = 0.5
WATCHDOG_SECONDS = 10.0
# Without clusters, as on macOS, Ray takes the loopback address as the machine's, and all its servers listen there only.
CLUSTERS = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"


class OwnRay(RayWatch):
    """Watches the vital processes of a Ray that this process has started."""

    def __init__(self, owner: str, vital: Mapping[str, Any]) -> None:
        super().__init__(POLL_SECONDS)
        self._owner, self._vital = owner, vital

    def check(self) -> None:
        """Raise a `LostRayError` if Ray has died."""
        self.look()
        super().check()

    def find_loss(self) -> str | None:
        """Name a vital process that has ended."""
        for name, process in self._vital.items():
            if process.poll() is not None:
                return (
                    f"Ray has died: its {VITAL[name]} (process {process.pid}) was killed or crashed, perhaps for lack"
                    " of memory; run the same command again to continue."
                )
        return None

    def after_loss(self) -> None:
        """End Ray's other processes, which print the log of a raylet that died."""
        watchdog.kill(watchdog.processes_of(self._owner) - {process.pid for process in self._vital.values()})


@contextmanager
def own_ray(start: Callable[[], None]) -> Iterator[OwnRay]:
    """Start Ray with `start`, which calls `ray.init`, and end it after the context, or with this process.

    It listens on the loopback address only.
    """
    import ray

    owner = uuid.uuid4().hex
    with _watchdog(owner):
        found: OwnRay | None = None
        try:
            # Titles of processes would overwrite the environment that marks them.
            with _environment({watchdog.OWNER: owner, "SPT_NOENV": "1", CLUSTERS: "0"}), _without_clusters():
                start()
            found = OwnRay(owner, _vital_processes())
            with quiet_ray(), found.watch():
                yield found
        finally:
            ray.shutdown()
            if found is not None:
                found.end()


def _vital_processes() -> dict[str, Any]:
    from ray._private import worker

    node: Any = worker._global_node
    return {name: node.all_processes[name][0].process for name in VITAL if node.all_processes.get(name)}


@contextmanager
def _without_clusters() -> Iterator[None]:
    """Let Ray, which may have been imported before, take the loopback address while the context lasts."""
    from ray._private import ray_constants

    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


@contextmanager
def _watchdog(owner: str) -> Iterator[None]:
    """Run the watchdog of the processes that `owner` marks; it ends all that are left after the context."""
    command = [sys.executable, "-I", "-S", watchdog.__file__, owner, str(os.getpid())]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True) as process:
        try:
            yield
        finally:
            assert process.stdin is not None, "it is a pipe"
            process.stdin.close()
            with suppress(subprocess.TimeoutExpired):
                process.wait(WATCHDOG_SECONDS)


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set variables of the environment while the context lasts."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
