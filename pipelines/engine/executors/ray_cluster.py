"""Joining a Ray cluster, or starting Ray on this machine."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

import torch

from codectok.errors import CodectokError, first_line

GPU_ANSWER_SECONDS = 300.0


def start_ray(address: str | None, cpus: int | None, log_to_driver: bool = False) -> None:
    """Connect this process to Ray.

    Args:
        address: address of a cluster to join; None for `RAY_ADDRESS`, or a Ray started on this machine.
        cpus: cores of a Ray started on this machine; None for all.
        log_to_driver: print the output of workers here.

    Raises:
        CodectokError: there is no cluster at `address`, or Ray cannot be started.
    """
    import ray

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ask for Ray's new behaviour, since Ray warns as long as the choice is open.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    address = address or os.environ.get("RAY_ADDRESS")
    settings: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": log_to_driver}
    if address is None:
        # "local": do not join a Ray that other users have started on this machine. Without a number Ray counts the
        # cores, and respects the limits of a container.
        settings |= {"include_dashboard": False, "num_cpus": cpus}
    on_terminate = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address=address or "local", **settings)
    except (ConnectionError, ValueError, RuntimeError) as error:
        where = f"reached at {address}" if address else "started on this machine"
        raise CodectokError(f"Ray could not be {where}: {first_line(error)}") from None
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, on_terminate)  # Ray's handler would end the process silently


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


def gpu_model_of(address: str | None) -> str | None:
    """Name of the GPUs of the cluster at `address` (or `RAY_ADDRESS`); joins the cluster, and stays in it.

    None if there is no cluster to join, or if it has no GPU.

    Raises:
        CodectokError: the cluster does not answer, or its GPUs do not.
    """
    import ray
    from ray.exceptions import GetTimeoutError, RayTaskError

    address = address or os.environ.get("RAY_ADDRESS")
    if address is None and not ray.is_initialized():
        return None
    if not ray.is_initialized():
        start_ray(address, None)
    if not cluster_resource("GPU"):
        return None
    ask: Any = ray.remote(num_gpus=1)(torch.cuda.get_device_name)
    try:
        return str(ray.get(ask.remote(), timeout=GPU_ANSWER_SECONDS))
    except GetTimeoutError:
        raise CodectokError("All GPUs of the Ray cluster are in use; wait for them, or pass --device cpu.") from None
    except RayTaskError as error:
        raise CodectokError(
            f"The Ray cluster has a GPU that torch cannot use there: {first_line(error.cause)}; pass"
            " --device cpu, or repair its drivers."
        ) from None
