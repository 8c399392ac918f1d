"""The training step, and the state that a run saves and loads."""

from __future__ import annotations

import math
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from codectok.audio.analysis.mel import LogMel
from codectok.checkpoints.native import SameCodes
from codectok.codec import Codec
from codectok.config import FiniteScalarQuantizerConfig
from codectok.errors import ConfigError
from codectok.model.network import CodecNetwork, NetworkOutput
from codectok.train.config import TrainConfig
from codectok.train.distributed import Ranks

from .adversary import Adversary
from .averaging import WeightAverage, averaged
from .envelope_loss import EnvelopeLoss
from .export import same_codes_of, trained_codec
from .losses import MultiScaleMelLoss
from .optimizer import ScheduledOptimizer, learning_rate
from .warm_start import copy_weights, load_initial_checkpoint

# Features per code that the k-means of the codebooks starts from.
VECTORS_PER_CODE = 4


class Trainer:
    """A codec in training with its adversary; deterministic for a given seed, device and number of ranks.

    Args:
        config: of the run.
        device: of this rank.
        ranks: this rank and the number of ranks; a single one by default.
        will_load_state: True if `load_state_dict` follows, so that a warm start can be skipped.

    Attributes:
        step: number of steps taken.
        network: the codec.
        adversary: the discriminators.
        optimizer: of the codec.
        average: moving average of the codec's weights, None if not configured.
        same_codes: codecs with the same codes, if only the decoder is trained; else None.
        skips_codebook_init: True if the codebooks are constants, or were copied by a warm start.
    """

    def __init__(
        self, config: TrainConfig, device: torch.device, ranks: Ranks | None = None, will_load_state: bool = False
    ) -> None:
        torch.manual_seed(config.seed)
        self.config = config
        self.device = device
        self.ranks = ranks or Ranks()
        self.step = 0
        self.network = CodecNetwork(config.codec)
        self._teacher: CodecNetwork | None = None
        self.same_codes: SameCodes | None = None
        self.skips_codebook_init = isinstance(config.codec.quantizer, FiniteScalarQuantizerConfig)
        if config.init_from is not None and (config.loss.distillation or not will_load_state):
            initial = load_initial_checkpoint(config.init_from, config.codec, with_quantizer=bool(config.train_only))
            self.skips_codebook_init |= copy_weights(initial.network, self.network)
            if config.train_only:
                self.same_codes = SameCodes(
                    codecs=initial.decodable_fingerprints, encoding_sha256=initial.encoding_sha256
                )
            if config.loss.distillation:
                self._teacher = initial.network.to(device).requires_grad_(False)
        self.network.prepare_for_training()
        if config.train_only:
            self.network.fix_codes()
        self.network.to(device).train()
        if config.loss.diversity:
            self.network.quantizer.measure_diversity()
        self.log_mel = LogMel(config.codec.mel).to(device)
        self.mel_loss = MultiScaleMelLoss(config.loss.mel, config.codec.mel).to(device)
        self.envelope_loss = _envelope_loss(config).to(device) if config.loss.envelope else None
        self.optimizer = ScheduledOptimizer(self.network, config.generator_optimizer, self.ranks)
        self.adversary = Adversary(
            config.discriminators, config.discriminator_optimizer, config.precision, self.ranks
        ).to(device)
        self.average = None if config.weight_average is None else WeightAverage(self.network, config.weight_average)
        self._synchronized = self.ranks.synchronized(self.network)

    @torch.no_grad()
    def initialize_codebooks(self, batches: Iterable[Tensor]) -> None:
        """Initialize the codebooks, unless there are some, by a k-means of the features of the first batches.

        Several ranks get the same codebooks as a single rank with all of their batches.

        Args:
            batches: this rank's waveforms, [B, T] each; as many as needed are taken.
        """
        codec = self.config.codec
        if self.skips_codebook_init:
            return
        # More vectors than codes: a vector that equals its code leaves no residual for the next codebook.
        wanted = VECTORS_PER_CODE * codec.quantizer.codebook_size * codec.frame_size
        n_batches = math.ceil(wanted / (self.config.data.batch_size * self.config.segment_samples))
        self.network.eval()
        features = []
        for _, waveform in zip(range(n_batches), batches, strict=False):
            microbatches = waveform.to(self.device).chunk(self.config.accumulation)
            with self.autocast():
                encoded = [self.network.encoder(self.log_mel(microbatch)).float() for microbatch in microbatches]
            features.append(self.ranks.gather(torch.cat(encoded)))
        self.network.quantizer.initialize_codebooks(torch.cat(features), self.config.seed)
        # On different hardware, rounding differs and the clusters of the ranks would drift apart.
        for buffer in self.network.quantizer.buffers():
            self.ranks.broadcast(buffer)
        self.network.train()

    def train_step(self, waveform: Tensor) -> dict[str, Tensor]:
        """Take one step of the adversary and one of the codec on this rank's `waveform` [B, T].

        Returns:
            Scalars of the step, of this rank, on the device.
        """
        microbatches = waveform.to(self.device, non_blocking=True).chunk(self.config.accumulation)
        adversarial = self.step >= self.config.discriminators.start_step
        # The graphs of several microbatches may not fit into memory together, so each is computed again for its losses.
        kept = self._reconstruct(microbatches[0], 0) if len(microbatches) == 1 else None
        scalars: dict[str, Tensor] = {}
        if adversarial:
            with torch.no_grad():
                generated = [(kept or self._reconstruct(real, n)).waveform for n, real in enumerate(microbatches)]
            scalars["discriminator"] = self.adversary.train_step(
                list(zip(microbatches, generated, strict=True)), self.step - self.config.discriminators.start_step
            )
        losses_of_microbatches, passes = [], []
        for number, real in enumerate(microbatches):
            with self.ranks.accumulating(self._synchronized, last=number == len(microbatches) - 1):
                output = kept or self._reconstruct(real, number)
                losses = self._losses(real, output, adversarial)
                torch.autograd.backward(losses["generator"] / len(microbatches))
            losses_of_microbatches.append({name: loss.detach() for name, loss in losses.items()})
            passes.append(output.quantizer.frames)
        self.network.quantizer.update_codebooks(passes)
        self.optimizer.step(self.step)
        if self.average is not None:
            self.average.update()
        for name in losses_of_microbatches[0]:
            scalars[name] = torch.stack([losses[name] for losses in losses_of_microbatches]).mean()
        scalars["learning_rate"] = torch.tensor(learning_rate(self.config.generator_optimizer, self.step))
        self.step += 1
        return scalars

    def _reconstruct(self, waveform: Tensor, microbatch: int) -> NetworkOutput:
        """Forward pass; repeated in the same step for the same microbatch it returns the same output."""
        self._seed(microbatch)
        log_mel = self.log_mel(waveform)
        # The synchronized module averages gradients over the ranks; a pass without gradients must not involve it.
        network = self._synchronized if torch.is_grad_enabled() else self.network
        with self.autocast():
            output: NetworkOutput = network(log_mel)
        output.waveform = output.waveform.float()
        return output

    def _losses(self, real: Tensor, output: NetworkOutput, adversarial: bool) -> dict[str, Tensor]:
        """Unweighted terms of the loss, and their weighted sum as "generator"."""
        weights, generated = self.config.loss, output.waveform
        differences = self.mel_loss(generated, real)
        losses = {f"mel_{term.n_fft}": difference for term, difference in zip(weights.mel, differences, strict=True)}
        total = self.mel_loss.total(differences)

        def add(name: str, weight: float, loss: Tensor) -> None:
            nonlocal total
            losses[name] = loss
            total = total + weight * loss

        add("commitment", weights.commitment, output.quantizer.commitment_loss)
        if weights.waveform:
            add("waveform", weights.waveform, F.l1_loss(generated, real))
        if self.envelope_loss is not None:
            add("envelope", weights.envelope, self.envelope_loss(generated, real))
        if output.quantizer.diversity_loss is not None:
            add("diversity", weights.diversity, output.quantizer.diversity_loss)
        if self._teacher is not None:
            target, features = self._quantized_by(self._teacher, real), output.quantizer.features.float()
            # With different time factors one of them may be padded by some frames.
            n_frames = min(target.shape[1], features.shape[1])
            add("distillation", weights.distillation, F.mse_loss(features[:, :n_frames], target[:, :n_frames]))
        if adversarial:
            found = self.adversary.generator_losses(real, generated)
            add("adversarial", weights.adversarial, found.adversarial)
            add("feature_matching", weights.feature_matching, found.feature_matching)
        return {**losses, "generator": total}

    @torch.no_grad()
    def _quantized_by(self, teacher: CodecNetwork, waveform: Tensor) -> Tensor:
        """Quantized features [B, T, C] of the teacher."""
        log_mel = self.log_mel(waveform)
        with self.autocast():
            return teacher.quantizer.decode(teacher.encode(log_mel)).float()

    def _seed(self, microbatch: int) -> None:
        """Seed per step, rank and microbatch, so that no RNG state has to be saved."""
        entropy = [self.config.seed, self.step, self.ranks.rank, microbatch]
        torch.manual_seed(int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> 1))

    def state_dict(self) -> dict[str, Any]:
        """All state that the next step depends on."""
        return {
            "step": self.step,
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "adversary": self.adversary.state_dict(),
            "adversary_optimizer": self.adversary.optimizer.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "same_codes": None if self.same_codes is None else self.same_codes.model_dump(),
        }

    def load_state_dict(self, state: dict[str, Any], own_settings: bool = False) -> None:
        """Restore the state from `state_dict`; the next step is the same to the bit.

        Args:
            state: to restore.
            own_settings: keep the configured settings of the optimizers, instead of those of `state`.
        """
        self.step = state["step"]
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"], own_settings)
        self.adversary.load_state_dict(state["adversary"])
        self.adversary.optimizer.load_state_dict(state["adversary_optimizer"], own_settings)
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.same_codes = same_codes_of(state)

    def autocast(self) -> AbstractContextManager[object]:
        """Context that runs layers in the configured precision."""
        if self.config.precision == "float32":
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)

    def averaged(self) -> AbstractContextManager[None]:
        """Context in which the network has its averaged weights, if averages are configured."""
        return averaged(self.average)

    def export(self) -> Codec:
        """Return the current codec for inference on the CPU, with averaged weights if configured."""
        with self.averaged():
            return trained_codec(self.config.codec, self.network, self.step, self.same_codes)


def _envelope_loss(config: TrainConfig) -> EnvelopeLoss:
    sample_rate = config.codec.mel.sample_rate
    loss = EnvelopeLoss(sample_rate)
    if config.segment_samples < loss.min_samples:
        seconds = loss.min_samples / sample_rate
        raise ConfigError(f"loss.envelope needs a data.segment_seconds of at least {seconds:.3f}.")
    return loss
