"""Choice of kernels."""

from __future__ import annotations

import shutil

import pytest
import torch

from codectok import InputError
from codectok.choices import KernelChoice, Precision
from codectok.model.kernels import support
from codectok.model.kernels.support import resolve_kernels
from tests.helpers.codecs import NANO, make_codec

GPU = torch.device("cuda", 0)


@pytest.mark.parametrize(
    ("choice", "device", "dtype", "expected"),
    [
        ("auto", "cpu", "bfloat16", "torch"),
        ("auto", "cuda", "float32", "torch"),
        ("auto", "cuda", "bfloat16", "triton"),
        ("triton", "cuda", "bfloat16", "triton"),
        ("torch", "cuda", "bfloat16", "torch"),
    ],
)
def test_kernels_are_chosen(
    choice: KernelChoice, device: str, dtype: Precision, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(support, "missing_for_kernels", lambda device: None)
    monkeypatch.setattr(support, "problem_with_kernels", lambda device: None)
    assert resolve_kernels(choice, torch.device(device), dtype) == expected


def test_machine_without_compiler_uses_torch_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.delenv("CC", raising=False)
    assert resolve_kernels("auto", GPU, "bfloat16") == "torch"
    assert "there is no C compiler" in caplog.text
    with pytest.raises(InputError, match=r"there is no C compiler; use torch's \(--kernels torch\)"):
        resolve_kernels("triton", GPU, "bfloat16")


def test_kernel_that_does_not_run_is_noticed_where_it_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(support, "missing_for_kernels", lambda device: None)
    monkeypatch.setattr(support, "problem_with_kernels", lambda device: "a test failed")
    assert resolve_kernels("auto", GPU, "bfloat16") == "torch"
    assert resolve_kernels("auto", GPU, "bfloat16", compile_one=False) == "triton"


@pytest.mark.parametrize("capability", [(7, 5), (9, 0)])
def test_old_gpu_has_no_kernels(capability: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setenv("CC", "cc")
    pytest.importorskip("triton")
    assert support.missing_for_kernels(GPU) == ("the GPU is too old" if capability < (8, 0) else None)


@pytest.mark.parametrize(("device", "dtype"), [("cpu", "bfloat16"), ("cuda", "float32")])
def test_kernels_that_do_not_exist_are_refused(device: str, dtype: Precision) -> None:
    with pytest.raises(InputError, match="in bfloat16 on a GPU only"):
        resolve_kernels("triton", torch.device(device), dtype)
    with pytest.raises(InputError, match="no kernels 'cuda'; use auto, torch, triton"):
        resolve_kernels("cuda", torch.device(device), dtype)  # type: ignore[arg-type]


def test_codec_on_cpu_has_kernels_of_torch() -> None:
    codec = make_codec(NANO, dtype="bfloat16")
    assert codec.kernels == codec.describe().kernels == "torch"
