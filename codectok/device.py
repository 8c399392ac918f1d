"""Devices, and the precision in which a computation runs on one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any, cast, get_args

import torch
from torch import Tensor

from .choices import Precision
from .errors import InputError

_REDUCTION = "allow_bf16_reduced_precision_reduction"


def resolve_device(device: str) -> torch.device:
    """Find a device by name; "auto" selects CUDA if available, else the CPU.

    Raises:
        InputError: unknown, unsupported or absent device.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        resolved = torch.device(device)
    except RuntimeError:
        raise InputError(f"There is no device {device!r}; use auto, cpu or cuda.") from None
    if resolved.type not in ("cpu", "cuda"):
        raise InputError(f"Device {device!r} is not supported; use auto, cpu or cuda.")
    if resolved.type == "cuda" and resolved.index is None and torch.cuda.is_available():
        # With an index, so that a later change of the current device does not change it.
        return torch.device("cuda", torch.cuda.current_device())
    if resolved.type == "cuda" and (resolved.index or 0) >= torch.cuda.device_count():
        raise InputError(f"Device {device!r} does not exist: torch sees {torch.cuda.device_count()} CUDA devices.")
    return resolved


def device_class(device: torch.device) -> str:
    """Return "cpu" or the GPU's model; codes can differ in rare near-ties between device classes."""
    return "cpu" if device.type == "cpu" else torch.cuda.get_device_name(device)


def current_device(device: torch.device) -> AbstractContextManager[object]:
    """Return a context in which a GPU `device` is the current one, on which kernels and graphs run."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def check_precision(dtype: str, device: torch.device) -> Precision:
    """Return `dtype` if `device` supports it.

    Raises:
        InputError: unknown dtype, or one that the device does not support.
    """
    if dtype not in get_args(Precision):
        raise InputError(f"There is no dtype {dtype!r}; use {', '.join(get_args(Precision))}.")
    if dtype == "tf32" and device.type != "cuda":
        raise InputError("dtype tf32 exists on CUDA devices only; use float32 or bfloat16.")
    return cast(Precision, dtype)


def no_autocast(tensor: Tensor) -> torch.autocast:
    """Return a context that disables autocast on the device of `tensor`."""
    return torch.autocast(tensor.device.type, enabled=False)


@contextmanager
def inference(device: torch.device, tf32: bool, autocast: bool) -> Iterator[None]:
    """Run inference in float32, regardless of the process's precision settings.

    Args:
        device: device that computes.
        tf32: compute matrix products, convolutions and recurrent layers on a GPU in TF32.
        autocast: compute layers in bfloat16.
    """
    with float32_products(tf32), torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=autocast):
        yield


@contextmanager
def float32_products(tf32: bool = False) -> Iterator[None]:
    """Compute matrix products and convolutions of float32 tensors exactly, or with `tf32` on a GPU in TF32."""
    backends: Any = torch.backends  # torch has no type annotations for these settings
    on_gpu = "tf32" if tf32 else "ieee"
    wanted = [
        (backends.cuda.matmul, on_gpu),
        (backends.cudnn.conv, on_gpu),
        (backends.cudnn.rnn, on_gpu),
        (backends.mkldnn.matmul, "ieee"),
        (backends.mkldnn.conv, "ieee"),
        (backends.mkldnn.rnn, "ieee"),
    ]
    before = [setting.fp32_precision for setting, _ in wanted]
    with ExitStack() as stack:
        for (setting, precision), found in zip(wanted, before, strict=True):
            stack.callback(_restore, setting, found)
            setting.fp32_precision = precision
        matmul = backends.cuda.matmul
        stack.callback(setattr, matmul, _REDUCTION, getattr(matmul, _REDUCTION))
        setattr(matmul, _REDUCTION, False)
        yield


def _restore(setting: Any, precision: str) -> None:
    # Reading a setting resolves its inherited value; writing that value back would end the inheritance.
    setting.fp32_precision = "none"
    if setting.fp32_precision != precision:
        setting.fp32_precision = precision
