"""Kernels for NVIDIA GPUs, written in Triton; a kernel computes each frame the same, wherever it is in a batch."""
