"""Finds out if this machine can compile kernels, and chooses them."""

from __future__ import annotations

import functools
import logging
import os
import shutil
from importlib.util import find_spec
from typing import get_args

import torch

from codectok.choices import KernelChoice, Kernels, Precision
from codectok.errors import InputError

OLDEST = (8, 0)  # compute capability of the first GPUs with products in bfloat16
COMPILERS = ("cc", "gcc", "clang")  # Triton compiles the code that launches a kernel with one of them

log = logging.getLogger(__name__)


def resolve_kernels(kernels: KernelChoice, device: torch.device, dtype: Precision, compile_one: bool = True) -> Kernels:
    """Choose the kernels of a codec on `device`.

    Kernels of Triton exist for bfloat16 on GPUs; "auto" chooses them there. If this machine cannot compile them, it
    chooses "torch", and a warning says why.

    Args:
        kernels: the choice.
        device: device that computes.
        dtype: arithmetic.
        compile_one: compile a kernel and run it on the GPU, else only look for a compiler.

    Raises:
        InputError: "triton" does not run here, or an unknown choice.
    """
    if wanted_kernels(kernels, device.type, dtype) == "torch":
        return "torch"
    problem = missing_for_kernels(device) or (problem_with_kernels(device) if compile_one else None)
    if problem is None:
        return "triton"
    if kernels == "triton":
        raise InputError(f"Kernels of Triton cannot be compiled here: {problem}; use torch's (--kernels torch).")
    log.warning("Encoding and decoding are slower than with kernels of Triton, which cannot be used: %s.", problem)
    return "torch"


def wanted_kernels(kernels: KernelChoice, device_type: str, dtype: Precision) -> Kernels:
    """Choose the kernels for a type of device, "cpu" or "cuda", of a machine that can compile them.

    Raises:
        InputError: "triton" for another device or precision, or an unknown choice.
    """
    if kernels not in get_args(KernelChoice):
        raise InputError(f"There are no kernels {kernels!r}; use {', '.join(get_args(KernelChoice))}.")
    exist = device_type == "cuda" and dtype == "bfloat16"
    if kernels == "triton" and not exist:
        raise InputError(
            "Kernels of Triton compute in bfloat16 on a GPU only; use --dtype bfloat16, or leave --kernels out."
        )
    return "torch" if kernels == "torch" or not exist else "triton"


def missing_for_kernels(device: torch.device) -> str | None:
    """Return what Triton misses to compile kernels for `device`, a CUDA device; None if nothing seems to be missing."""
    if torch.cuda.get_device_capability(device) < OLDEST:
        return "the GPU is too old"
    if find_spec("triton") is None:
        return "the package triton is not installed"
    if not os.environ.get("CC") and not any(shutil.which(name) for name in COMPILERS):
        return "there is no C compiler"
    return None


@functools.cache
def problem_with_kernels(device: torch.device) -> str | None:
    """Return why a kernel cannot be compiled and run on `device`, a CUDA device; None if it can."""
    try:
        from .probe import compile_probe

        compile_probe(device)
    except Exception as error:  # Triton raises exceptions of many types, its C compiler others
        lines = str(error).splitlines()
        return f"a test failed ({lines[0] if lines else type(error).__name__})"
    return None
