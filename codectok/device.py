"""In which arithmetic a computation runs, whatever the process has set for itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor

from .errors import InputError

_REDUCTION = "allow_bf16_reduced_precision_reduction"

Precision = Literal["float32", "tf32", "bfloat16"]


def check_precision(dtype: str, device: torch.device) -> Precision:
    """`dtype` if it exists on `device`, else an `InputError`."""
    if dtype not in get_args(Precision):
        raise InputError(f"There is no dtype {dtype!r}; use {', '.join(get_args(Precision))}.")
    if dtype == "tf32" and device.type != "cuda":
        raise InputError("dtype tf32 exists on CUDA devices only; use float32 or bfloat16.")
    return cast(Precision, dtype)


def no_autocast(tensor: Tensor) -> torch.autocast:
    """A context in which nothing on the device of `tensor` is cast to a lower precision."""
    return torch.autocast(tensor.device.type, enabled=False)


@contextmanager
def inference(device: torch.device, tf32: bool, autocast: bool) -> Iterator[None]:
    """Inference in float32; with `tf32` products on a GPU are in TF32, with `autocast` layers are in bfloat16."""
    backends: Any = torch.backends  # torch does not declare these settings
    on_gpu = "tf32" if tf32 else "ieee"
    wanted = [
        (backends.cuda.matmul, on_gpu),
        (backends.cudnn.conv, on_gpu),
        (backends.mkldnn.matmul, "ieee"),
        (backends.mkldnn.conv, "ieee"),
    ]
    before = [setting.fp32_precision for setting, _ in wanted]
    with ExitStack() as stack:
        for (setting, precision), found in zip(wanted, before, strict=True):
            stack.callback(_restore, setting, found)
            setting.fp32_precision = precision
        matmul = backends.cuda.matmul
        stack.callback(setattr, matmul, _REDUCTION, getattr(matmul, _REDUCTION))
        setattr(matmul, _REDUCTION, False)
        stack.enter_context(torch.inference_mode())
        stack.enter_context(torch.autocast(device.type, torch.bfloat16, enabled=autocast))
        yield


def _restore(setting: Any, precision: str) -> None:
    # Reading resolves what a setting inherits; written back as it was read, it would inherit no more.
    setting.fp32_precision = "none"
    if setting.fp32_precision != precision:
        setting.fp32_precision = precision
