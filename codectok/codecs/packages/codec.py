"""Base of the packaged codecs: loading, fingerprint, and the shortest clip."""

from __future__ import annotations

import json
import warnings
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar

import torch

from codectok.checkpoints.native import check_finite_tensors
from codectok.choices import Precision
from codectok.codecs.fingerprints import hash_codec
from codectok.codecs.whole_clip_codec import WholeClipCodec
from codectok.device import inference
from codectok.errors import CheckpointError, shortened
from codectok.memory import is_out_of_memory

from .files import ModelFiles, import_package

# The shortest clip is sought up to this number of frames.
FRAMES_TRIED = 64


class PackageCodec(WholeClipCodec):
    """A codec of another maker's package.

    Args:
        files: configuration and weights.
        device, dtype, batch_seconds: as in `WholeClipCodec`.

    Attributes:
        package: name of the package, and of the scheme.
        weight_files: names that the package uses for its file of weights.
        model: the model of the package.

    Raises:
        CheckpointError: the package is missing, or does not accept the configuration or the weights.
    """

    package: ClassVar[str]
    weight_files: ClassVar[Sequence[str]]

    def __init__(
        self, files: ModelFiles, device: str = "auto", dtype: Precision = "float32", batch_seconds: float = 0.0
    ) -> None:
        super().__init__(device, dtype, batch_seconds)
        self.codec_type, self.revision = self.package, files.revision
        self._name = files.name
        model = build(files, self.make_model)
        architecture = json.dumps({"package": self.package, **files.config}, sort_keys=True)
        hashes = hash_codec(architecture.encode(), model.state_dict())
        self._fingerprint, self.weights_sha256 = hashes.codec, hashes.weights
        self.model = model.to(self.device)
        self.check_model(files)
        self.min_samples = self._shortest()

    @abstractmethod
    def make_model(self, config: Mapping[str, Any]) -> Any:
        """Make the model of a configuration; any exception means that it is not valid."""

    def check_model(self, files: ModelFiles) -> None:
        """Raise a `CheckpointError` if codes of the model do not form frames."""

    @property
    def name(self) -> str:
        """Name on the Hub, or of the local folder."""
        return self._name

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the configuration and all tensors."""
        return self._fingerprint

    def _shortest(self) -> int:
        """Return the number of samples from which on the model encodes a clip, found by trying."""
        low, high = 0, 1
        while not self._can_encode(high):
            low, high = high, 2 * high
            if low > FRAMES_TRIED * self.frame_size:
                raise CheckpointError(f"The model {self.name} cannot encode {low} samples; it is not usable.")
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self._can_encode(middle) else (middle, high)
        return high

    def _can_encode(self, n_samples: int) -> bool:
        try:
            with inference(self.device, tf32=False, autocast=False):
                return bool(self.encode_samples(torch.zeros(1, n_samples, device=self.device)).shape[1])
        except (RuntimeError, ValueError, IndexError, AssertionError) as error:
            if is_out_of_memory(error):
                raise
            return False


def build(files: ModelFiles, make: Callable[[Mapping[str, Any]], Any]) -> Any:
    """Make a model and load its weights.

    Raises:
        CheckpointError: the configuration is not valid, or the weights do not fit it.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of torch, about its functions that a package uses
            model = make(files.config)
    except CheckpointError:
        raise
    except Exception as error:  # packages check nothing, so that any exception may come
        raise CheckpointError(f"The configuration of {files.name} is not valid: {shortened(error)}.") from None
    weights = files.load_weights()
    check_finite_tensors(weights, str(files.weights))
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:]] or [shortened(error)]
        raise CheckpointError(f"{files.weights} does not fit its configuration: {lines[0].rstrip('.')}.") from None
    return model.eval().requires_grad_(False)


def unoptimized() -> AbstractContextManager[None]:
    """Run functions of TorchScript as they are written: its optimizer fuses them after some calls, and bits change."""
    jit: Any = torch.jit  # torch has no type annotations for this function
    context: AbstractContextManager[None] = jit.optimized_execution(False)
    return context


def package_class(package: str, name: str) -> Any:
    """Import a class of a package; raise a `CheckpointError` if the package lacks it."""
    found = getattr(import_package(package), name, None)
    if found is None:
        raise CheckpointError(f"The installed package {package} has no class {name}; install another version.")
    return found
