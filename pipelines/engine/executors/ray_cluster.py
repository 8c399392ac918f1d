"""Joining a Ray cluster, or starting Ray on this machine."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch

from codectok.errors import CodectokError, first_line
from codectok.pipelines.engine.ray_metrics import metrics_port

from .joined_ray import watched_cluster
from .node_checks import describe_problems, nodes_without_our_code, package_folder
from .own_ray import own_ray
from .ray_address import check_answer, check_greeting, cluster_address
from .ray_watch import quiet_ray

GPU_ANSWER_SECONDS = 300.0
# Time until the first note that a GPU is waited for, and between later ones.
GPU_NOTE_SECONDS, GPU_NOTES_SECONDS = 10.0, 60.0
GPU_POLL_SECONDS = 2.0
# Address of the cluster that this process has joined, if any.
_joined: list[str] = []
# The server of Ray Client forks a process for each client while it answers others, and some die at once.
CLIENT_SERVER_DIED, CLIENT_ATTEMPTS = "Starting Ray client server failed", 3


@contextmanager
def ray_session(address: str | None, cpus: int | None) -> Iterator[Callable[[], None]]:
    """Connect this process to Ray while the context lasts; does nothing if it is connected already.

    Args:
        address: address of a cluster to join; None for `RAY_ADDRESS`, or a Ray started on this machine.
        cpus: cores of a Ray started on this machine; None for all.

    Yields:
        a function that raises a `LostRayError` if this Ray has died, or its head does not answer anymore.

    Raises:
        CodectokError: there is no cluster at `address`, or Ray cannot be started.
    """
    import ray

    address = cluster_address(address)
    if ray.is_initialized() and not (has_joined() and address):
        yield _nothing
    elif address is None:
        # "local": do not join a Ray that other users have started on this machine. Without a number Ray counts the
        # cores, and respects the limits of a container.
        served = {"include_dashboard": False, "num_cpus": cpus, "_metrics_export_port": metrics_port()}
        with own_ray(lambda: _initialize("local", **served)) as own:
            yield own.check
    else:
        if not has_joined():
            join_cluster(address)
        try:
            with watched_cluster(address) as check:
                yield check
        finally:
            _joined.clear()


def has_joined() -> bool:
    """Return True in a cluster that `join_cluster` has joined; False in a Ray of the program that calls codectok."""
    import ray

    return ray.is_initialized() and bool(_joined)


def join_cluster(address: str) -> None:
    """Connect this process to the cluster at `address`, whose machines run the codectok of this one.

    Machines without this very codectok get a copy of it; the packages that it needs must be there.

    Raises:
        CodectokError: the cluster does not answer, or a machine cannot run codectok.
    """
    import ray

    check_answer(address)
    with quiet_ray():  # it would tell of machines that were lost before
        _initialize(address)
        if nodes_without_our_code():
            ray.shutdown()
            _initialize(address, runtime_env={"py_modules": [package_folder()]})
            still = nodes_without_our_code()
            if still:
                ray.shutdown()
                raise CodectokError(describe_problems(still))
    _joined.append(address)


def _initialize(address: str, **settings: Any) -> None:
    import ray
    from ray.exceptions import RayError

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ask for Ray's new behaviour, since Ray warns as long as the choice is open.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    on_terminate = signal.getsignal(signal.SIGTERM)
    for attempt in range(1, CLIENT_ATTEMPTS + 1):
        try:
            ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False, **settings)
            break
        except (ConnectionError, ValueError, RuntimeError, RayError) as error:
            if CLIENT_SERVER_DIED in str(error) and attempt < CLIENT_ATTEMPTS:
                continue
            where = "started on this machine" if address == "local" else f"reached at {address}"
            raise CodectokError(f"Ray could not be {where}: {init_problem(error)}.") from None
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, on_terminate)  # Ray's handler would end the process silently


def init_problem(error: Exception) -> str:
    """Return the reason for which Ray could not be joined or started, in one line and without a full stop."""
    text = str(error).strip()
    if "Traceback" in text:  # of the server of Ray Client
        text = text.splitlines()[-1]
    elif "ersion mismatch" in text:
        text = " ".join(text.split())
    elif "Failed to merge" in text:  # Ray quotes all variables of the job, also keys of a store
        text = "the py_modules of the submitted job leave out codectok, which machines lack; add its folder to them"
    else:
        text = first_line(error)
    return text.rstrip(".")


def _nothing() -> None:
    """Another program answers for this Ray."""


def cluster_resource(name: str) -> float:
    """Amount of a resource, "CPU" or "GPU", in the whole cluster."""
    import ray

    ask: Any = ray.cluster_resources
    return float(ask().get(name, 0))


def current_umask() -> int:
    """Return the umask of this process. Workers set it, since actors inherit the umask of the cluster."""
    # The system has no other way to read it than to set it.
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def gpu_model_of(address: str | None, on_wait: Callable[[str], None] | None = None) -> str | None:
    """Name of the GPUs of the cluster at `address` (or `RAY_ADDRESS`); joins the cluster, and stays in it.

    Args:
        address: of the cluster.
        on_wait: called with a sentence every minute while the cluster has no free GPU; Ray's autoscaler may start one.
            With None, return None for a cluster without a GPU, and wait at most five minutes for a free one.

    Returns:
        None if there is no cluster to join.

    Raises:
        CodectokError: the cluster does not answer, or its GPUs do not.
    """
    import ray
    from ray.exceptions import RayTaskError

    if not ray.is_initialized():
        address = cluster_address(address)
        if address is None:
            return None
        join_cluster(address)
    if not cluster_resource("GPU") and on_wait is None:
        return None
    ask: Any = ray.remote(num_gpus=1)(torch.cuda.get_device_name)
    answer = ask.remote()
    started, next_note = time.monotonic(), GPU_NOTE_SECONDS
    try:
        while not ray.wait([answer], timeout=GPU_POLL_SECONDS)[0]:
            if address is not None:
                check_greeting(address)
            waited = time.monotonic() - started
            if on_wait is None and waited > GPU_ANSWER_SECONDS:
                raise CodectokError("All GPUs of the Ray cluster are in use; wait for them, or pass --device cpu.")
            if on_wait is not None and waited > next_note:
                reason = "all of its GPUs are in use" if cluster_resource("GPU") else "it has no machine with a GPU yet"
                on_wait(f"Waiting for a GPU of the Ray cluster: {reason}. Stop with Ctrl-C, or pass --device cpu.")
                next_note = waited + GPU_NOTES_SECONDS
        return str(ray.get(answer))
    except RayTaskError as error:
        raise CodectokError(
            f"The Ray cluster has a GPU that torch cannot use there: {first_line(error.cause)}; pass"
            " --device cpu, or repair its drivers."
        ) from None
    finally:
        with suppress(Exception):  # the cluster may be lost
            ray.cancel(answer)
