"""Log-mel spectrograms as small PNG pictures."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

import numpy as np

WIDTH, HEIGHT = 480, 96
WINDOW_SECONDS = 0.04
# Windows a column, of which the mean is shown; long clips are sampled.
WINDOWS_OF_COLUMN = 4
# Below the loudest point of the original.
RANGE_DECIBELS = 70.0
# Digital silence has no finite level.
LEAST_POWER = 1e-14
COLOURS = 256
# Green 2011, "A colour scheme for the display of astronomical intensity images".
HELIX_START, HELIX_ROTATIONS, HELIX_HUE = 0.5, -1.5, 1.0


def spectrograms(
    clips: Sequence[np.ndarray], sample_rate: int, width: int = WIDTH, height: int = HEIGHT
) -> list[bytes]:
    """Draw the log-mel spectrograms of an original and its reconstructions as PNG files.

    All pictures have the colours of the first clip's range: from its loudest point, which is white, to 70 dB below.
    Time runs to the right, at one scale for all clips; mel frequency runs upwards to half the sample rate. The bytes
    depend on the clips alone.

    Args:
        clips: float32 [n] each; the first is the original.
        sample_rate: in Hz.
        width, height: in pixels.
    """
    longest = max((len(clip) for clip in clips), default=0)
    levels = [mel_levels(clip, sample_rate, width, height, longest) for clip in clips]
    # A silent original is black, and not as loud as its loudest point.
    least = 10 * np.log10(LEAST_POWER) + RANGE_DECIBELS
    peak = max((float(found.max()) for found in levels[:1]), default=least)
    peak = max(peak, least)
    return [png(np.clip((found - peak) / RANGE_DECIBELS + 1, 0, 1)) for found in levels]


def mel_levels(samples: np.ndarray, sample_rate: int, width: int, height: int, length: int) -> np.ndarray:
    """Compute mean mel levels in dB, float64 [height, width]; the first row is the highest band.

    Args:
        samples: float32 [n].
        sample_rate: in Hz.
        width: number of columns.
        height: number of mel bands.
        length: number of samples of the whole width; zeros follow a shorter clip.
    """
    size = max(16, round(WINDOW_SECONDS * sample_rate))
    bank = _mel_bank(size, sample_rate, height)
    window = np.hanning(size + 1)[:-1]
    powers = np.empty((width, height))
    padded = np.pad(samples.astype(np.float64), (size // 2, max(0, length - len(samples)) + size))
    centres = (np.arange(width * WINDOWS_OF_COLUMN) * (length / (width * WINDOWS_OF_COLUMN))).astype(np.int64)
    windows = np.lib.stride_tricks.sliding_window_view(padded, size)
    for column in range(width):
        places = centres[column * WINDOWS_OF_COLUMN : (column + 1) * WINDOWS_OF_COLUMN]
        spectra = np.fft.rfft(windows[places] * window)
        powers[column] = (np.square(np.abs(spectra)) @ bank).mean(0)
    levels: np.ndarray = 10 * np.log10(np.maximum(powers / window.sum() ** 2, LEAST_POWER)).T[::-1]
    return levels


def png(shades: np.ndarray) -> bytes:
    """Encode `shades` [height, width] from 0 (black) to 1 (white) as a PNG of 256 colours of rising lightness."""
    indices = np.round(shades * (COLOURS - 1)).astype(np.uint8)
    height, width = indices.shape
    lines = np.pad(indices, ((0, 0), (1, 0)))  # each line begins with its filter, 0 for none
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)  # 8 bits, colours of a palette
    parts = ((b"IHDR", header), (b"PLTE", _palette()), (b"IDAT", zlib.compress(lines.tobytes(), 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in parts)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _palette() -> bytes:
    """Colours of a helix around the grey diagonal, whose lightness rises evenly: 3 bytes each."""
    shade = np.arange(COLOURS)[:, np.newaxis] / (COLOURS - 1)
    angle = 2 * np.pi * (HELIX_START / 3 + HELIX_ROTATIONS * shade)
    away = HELIX_HUE * shade * (1 - shade) / 2
    cosine, sine = (np.array(factors) for factors in ((-0.14861, -0.29227, 1.97294), (1.78277, -0.90649, 0.0)))
    colours = shade + away * (cosine * np.cos(angle) + sine * np.sin(angle))
    rounded: np.ndarray = np.round(np.clip(colours, 0, 1) * 255).astype(np.uint8)
    return rounded.tobytes()


def _mel_bank(size: int, sample_rate: int, n_bands: int) -> np.ndarray:
    """Triangles of unit area on the mel scale 2595 lg(1 + f / 700), up to half the rate: [size // 2 + 1, n_bands]."""
    top = 2595 * np.log10(1 + sample_rate / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, top, n_bands + 2) / 2595) - 1)
    # A band narrower than a bin would hold none.
    resolution = sample_rate / size
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]
    low, high = np.minimum(low, centre - resolution), np.maximum(high, centre + resolution)
    bins = np.arange(size // 2 + 1)[:, np.newaxis] * resolution
    triangles: np.ndarray = np.clip(np.minimum((bins - low) / (centre - low), (high - bins) / (high - centre)), 0, None)
    triangles /= triangles.sum(0)
    return triangles
