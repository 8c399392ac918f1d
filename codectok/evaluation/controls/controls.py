"""Controls: reconstructions whose quality is known, beside which codecs are measured."""

from __future__ import annotations

import shutil
from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np

from codectok.audio.resample import resample
from codectok.errors import AudioError

from .ogg import payload_bytes
from .programs import pipe

OPUS_RATE = 48_000
CODEC2_RATE = 8_000
# 40 ms, the frame of Codec2 at 1,200 bits per second.
CODEC2_FRAME = 320
# By which decoded speech lags, at 8 kHz.
CODEC2_DELAY = 160
LARGEST_SAMPLE = 32_767


class Control(ABC):
    """Makes a reconstruction of known quality.

    Attributes:
        name: in results.
        description: in a few words.
        tools: programs that must be installed.
        package: name of the package that holds them; None if none are needed.
    """

    name: ClassVar[str]
    description: ClassVar[str]
    tools: ClassVar[tuple[str, ...]] = ()
    package: ClassVar[str | None] = None

    def missing_tools(self) -> tuple[str, ...]:
        """Return the programs that are not installed."""
        return tuple(tool for tool in self.tools if shutil.which(tool) is None)

    def available(self) -> bool:
        """Return True if all programs are installed."""
        return not self.missing_tools()

    @abstractmethod
    def reconstruct(self, samples: np.ndarray, sample_rate: int, seed: int) -> np.ndarray:
        """Return the reconstruction float32 [n] of `samples` float32 [n], aligned with them.

        Args:
            samples: of the clip.
            sample_rate: of both, in Hz.
            seed: of noise; use a number that depends on the clip.

        Raises:
            AudioError: the clip is empty or not finite.
            CodectokError: a program is missing or fails.
        """


class Original(Control):
    """The clip itself."""

    name, description = "original", "the original itself: the best value of each metric"

    def reconstruct(self, samples: np.ndarray, sample_rate: int, seed: int) -> np.ndarray:
        """Return a copy of the clip."""
        return _checked(samples).copy()


class Silence(Control):
    """Zeros."""

    name, description = "silence", "silence: a floor"

    def reconstruct(self, samples: np.ndarray, sample_rate: int, seed: int) -> np.ndarray:
        """Return zeros."""
        return np.zeros_like(_checked(samples))


class Noise(Control):
    """White noise with the clip's root mean square."""

    name, description = "noise", "white noise as loud as the clip: a floor"

    def reconstruct(self, samples: np.ndarray, sample_rate: int, seed: int) -> np.ndarray:
        """Return noise of the clip's length and power."""
        noise = np.random.default_rng(seed).standard_normal(len(_checked(samples)))
        powers = [float(np.mean(np.square(values, dtype=np.float64))) for values in (samples, noise)]
        scaled: np.ndarray = noise * np.sqrt(powers[0] / powers[1])
        return scaled.astype(np.float32)


class CodedControl(Control):
    """A codec of other makers, run as two programs."""

    @abstractmethod
    def encode(self, samples: np.ndarray, sample_rate: int) -> bytes:
        """Encode a clip."""

    @abstractmethod
    def decode(self, encoded: bytes, n_samples: int, sample_rate: int) -> np.ndarray:
        """Decode to `n_samples` samples, aligned with the clip."""

    @abstractmethod
    def payload_bits(self, encoded: bytes) -> int:
        """Return the number of bits of the coded audio, without headers of the file."""

    def reconstruct(self, samples: np.ndarray, sample_rate: int, seed: int) -> np.ndarray:
        """Encode and decode the clip."""
        return self.decode(self.encode(samples, sample_rate), len(samples), sample_rate)


class Opus(CodedControl):
    """Opus at 6 kb/s, mono, at a constant bit rate.

    Codecs of tokens have a constant rate, too. A variable rate of the same name can be 10 % off.
    """

    name, description = "opus_6k", "Opus at 6,000 bits per second"
    tools, package = ("opusenc", "opusdec"), "opus-tools"

    def encode(self, samples: np.ndarray, sample_rate: int) -> bytes:
        """Encode a clip to an Ogg Opus file."""
        pcm = _to_pcm(samples, sample_rate, OPUS_RATE)
        raw = ["--raw", "--raw-bits", "16", "--raw-endianness", "0", "--raw-rate", str(OPUS_RATE), "--raw-chan", "1"]
        # The serial number of the stream is random otherwise.
        command = ["opusenc", "--quiet", *raw, "--bitrate", "6", "--hard-cbr", "--serial", "1", "-", "-"]
        return pipe(command, pcm.tobytes(), len(pcm) / OPUS_RATE, self.package)

    def decode(self, encoded: bytes, n_samples: int, sample_rate: int) -> np.ndarray:
        """Decode an Ogg Opus file."""
        command = ["opusdec", "--quiet", "--rate", str(OPUS_RATE), "--float", "-", "-"]
        decoded = np.frombuffer(pipe(command, encoded, n_samples / sample_rate, self.package), "<f4")
        return _fitted(resample(decoded.astype(np.float32), OPUS_RATE, sample_rate), n_samples)

    def payload_bits(self, encoded: bytes) -> int:
        """Return the bits of the packets of audio, without pages and headers of the Ogg file."""
        return 8 * payload_bytes(encoded)


class Codec2(CodedControl):
    """Codec2 at 1.2 kb/s, for speech at 8 kHz. Its delay of 20 ms is removed."""

    name, description = "codec2_1200", "Codec2 at 1,200 bits per second"
    tools, package = ("c2enc", "c2dec"), "codec2"

    def encode(self, samples: np.ndarray, sample_rate: int) -> bytes:
        """Encode a clip to frames of 48 bits."""
        pcm = _to_pcm(samples, sample_rate, CODEC2_RATE)
        # The encoder drops an incomplete frame; the delay needs half a frame more.
        length = len(pcm) + CODEC2_DELAY
        whole = np.pad(pcm, (0, length + -length % CODEC2_FRAME - len(pcm)))
        return pipe(["c2enc", "1200", "-", "-"], whole.tobytes(), len(pcm) / CODEC2_RATE, self.package)

    def decode(self, encoded: bytes, n_samples: int, sample_rate: int) -> np.ndarray:
        """Decode frames."""
        decoded = pipe(["c2dec", "1200", "-", "-"], encoded, n_samples / sample_rate, self.package)
        aligned = np.frombuffer(decoded, "<i2")[CODEC2_DELAY:].astype(np.float32) / (LARGEST_SAMPLE + 1)
        return _fitted(resample(aligned, CODEC2_RATE, sample_rate), n_samples)

    def payload_bits(self, encoded: bytes) -> int:
        """Return the bits of all frames."""
        return 8 * len(encoded)


CONTROLS: tuple[Control, ...] = (Original(), Silence(), Noise(), Opus(), Codec2())


def _checked(samples: np.ndarray) -> np.ndarray:
    if not len(samples):
        raise AudioError("The waveform has no samples.", "empty")
    if not np.isfinite(samples).all():
        raise AudioError("The waveform has samples that are not finite.", "not_finite")
    return samples


def _to_pcm(samples: np.ndarray, sample_rate: int, target_rate: int) -> np.ndarray:
    """Convert to 16-bit samples at another rate, at least one."""
    resampled = resample(_checked(samples), sample_rate, target_rate)
    scaled = np.clip(np.rint(resampled * (LARGEST_SAMPLE + 1.0)), -LARGEST_SAMPLE - 1, LARGEST_SAMPLE)
    return _fitted(scaled, max(1, len(scaled))).astype("<i2")


def _fitted(samples: np.ndarray, n_samples: int) -> np.ndarray:
    """Cut or pad with zeros; rounding of rates changes a length by a sample."""
    return np.pad(samples[:n_samples], (0, max(0, n_samples - len(samples))))
