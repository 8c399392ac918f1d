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
        address: of a cluster to join; without one, `RAY_ADDRESS` or a Ray of this machine's own.
        cpus: of a Ray of its own; None for all there are.
        log_to_driver: whether what workers print is printed here.

    Raises:
        CodectokError: there is no cluster, or Ray cannot be started.
    """
    import ray

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray warns about a default of its own unless told which behaviour is meant; the new one is.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    address = address or os.environ.get("RAY_ADDRESS")
    settings: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": log_to_driver}
    if address is None:
        # "local": a Ray that somebody else has started on this machine is not joined unasked. Where nobody says how
        # many, Ray itself counts the cores, those of a container included.
        settings |= {"include_dashboard": False, "num_cpus": cpus}
    on_terminate = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address=address or "local", **settings)
    except (ConnectionError, ValueError, RuntimeError) as error:
        where = f"reached at {address}" if address else "started on this machine"
        raise CodectokError(f"Ray could not be {where}: {first_line(error)}") from None
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, on_terminate)  # Ray's own handler would end the process without a word


def gpu_model_of(address: str | None) -> str | None:
    """Which GPUs the cluster at `address` (or `RAY_ADDRESS`) has, by their name; joins it, and stays in it.

    None without a cluster to join, or if it has no GPU.

    Raises:
        CodectokError: the cluster is not there, or its GPUs do not answer.
    """
    import ray
    from ray.exceptions import GetTimeoutError, RayTaskError

    address = address or os.environ.get("RAY_ADDRESS")
    if address is None and not ray.is_initialized():
        return None
    if not ray.is_initialized():
        start_ray(address, None)
    if not ray.cluster_resources().get("GPU"):
        return None
    ask: Any = ray.remote(num_gpus=1)(torch.cuda.get_device_name)
    try:
        return str(ray.get(ask.remote(), timeout=GPU_ANSWER_SECONDS))
    except GetTimeoutError:
        raise CodectokError("All GPUs of the Ray cluster are taken; wait for them, or pass --device cpu.") from None
    except RayTaskError as error:
        raise CodectokError(
            f"The Ray cluster has a GPU that torch cannot use there: {first_line(error.cause)}; pass"
            " --device cpu, or mend its drivers."
        ) from None
