"""Values of options that the command line offers and the library checks; imports nothing that takes time."""

from __future__ import annotations

from typing import Literal

DEFAULT_CODEC = "universal-small"
"""Built-in codec, which is used where none is named."""

Precision = Literal["float32", "tf32", "bfloat16"]
"""Arithmetic of the codec."""

WeightsType = Literal["float32", "float16"]
"""Type of stored weights; float16 halves the file and rounds them. Codecs compute in float32 with both."""

Kernels = Literal["torch", "triton"]
"""Kernels that compute codes on a GPU: those of torch, or fused ones of ours, compiled by Triton."""

KernelChoice = Literal["auto", "torch", "triton"]
"""Choice of kernels; "auto" is "triton" in bfloat16 on a GPU where this machine can compile, else "torch"."""

Segmenter = Literal["quiet", "fixed", "vad"]
"""Method to cut recordings."""

AudioFormat = Literal["flac", "wav"]
"""File format of segments."""

EngineName = Literal["ray", "local"]
"""Where units of a job run: in Ray actors, or in this process."""

CancelledChoice = Literal["first", "reject"]
"""Treatment of channels that cancel each other: the first one is used, or the clip is rejected."""

ScaleChoice = Literal["refuse", "auto"]
"""Treatment of floating-point samples far beyond full scale: an error, or division by the scale of integers."""

ListeningScale = Literal["clarity", "mushra", "both"]
"""Scales of a listening test: speech and background clarity from 1 to 5, quality from 0 to 100, or both in turn."""

CodeLayout = Literal["auto", "frames", "codebooks"]
"""Order of codes of other makers: frame after frame, or codebook after codebook; "auto" decides by the shape."""
