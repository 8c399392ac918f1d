"""Runs kernels of Triton on a CPU, by its interpreter; `tests/conftest.py` turns it on where there is no GPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest


def interpret_bfloat16_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the interpreter multiply bfloat16 numbers, which it keeps as integers of 16 bits and multiplies as such."""
    interpreter = pytest.importorskip("triton.runtime.interpreter")
    product = interpreter.InterpreterBuilder.create_dot

    def as_float32(tensor: Any) -> Any:
        if not tensor.dtype.scalar.is_bf16():
            return tensor
        bits = tensor.data.astype(np.uint32) << 16
        return interpreter.TensorHandle(bits.view(np.float32), interpreter.tl.float32)

    def create_dot(self: Any, a: Any, b: Any, *rest: Any) -> Any:
        return product(self, as_float32(a), as_float32(b), *rest)

    monkeypatch.setattr(interpreter.InterpreterBuilder, "create_dot", create_dot)
