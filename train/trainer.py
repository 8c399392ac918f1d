"""The training step and what a run has to remember."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from codectok.audio.mel import LogMel
from codectok.checkpoints import CheckpointHeader, build_network
from codectok.codec import Codec
from codectok.config import VectorQuantizerConfig
from codectok.errors import CodectokError, InputError
from codectok.model.network import CodecNetwork

from .adversary import Adversary
from .config import TrainConfig
from .data import SegmentDataset
from .losses import MultiScaleMelLoss
from .optimizer import build_optimizer, learning_rate, step_optimizer

VECTORS_PER_CODE = 4


@dataclass
class StepResult:
    """Scalars of a step (on the device) and the codes it used [B, T', n_codebooks]."""

    scalars: dict[str, Tensor]
    codes: Tensor


class Trainer:
    """A codec in training together with its adversary; deterministic for a seed and a device."""

    def __init__(self, config: TrainConfig, device: torch.device, data_hash: str) -> None:
        torch.manual_seed(config.seed)
        self.config = config
        self.device = device
        self.data_hash = data_hash
        self.step = 0
        self.network = CodecNetwork(config.codec)
        self.network.prepare_for_training()
        self.network.to(device).train()
        self.log_mel = LogMel(config.codec.mel).to(device)
        self.mel_loss = MultiScaleMelLoss(config.loss.mel, config.codec.mel).to(device)
        self.optimizer = build_optimizer(self.network.parameters(), config.generator_optimizer)
        self.adversary = Adversary(config.discriminators, config.discriminator_optimizer).to(device).train()

    @torch.no_grad()
    def initialize_codebooks(self, dataset: SegmentDataset) -> None:
        """Start the codebooks, where there are any, from the features of the stream's first segments."""
        codec, batch_size = self.config.codec, self.config.data.batch_size
        if not isinstance(codec.quantizer, VectorQuantizerConfig):
            return
        # More vectors than codes: what a code was placed on leaves nothing over for the codebook after it.
        wanted = VECTORS_PER_CODE * codec.quantizer.codebook_size * codec.frame_size
        n_batches = math.ceil(wanted / (batch_size * self.config.segment_samples))
        self.network.eval()
        features = []
        for batch in range(n_batches):
            positions = range(batch * batch_size, (batch + 1) * batch_size)
            waveform = torch.stack([dataset[position] for position in positions]).to(self.device)
            features.append(self.network.encoder(self.log_mel(waveform)))
        self.network.quantizer.initialize_codebooks(torch.cat(features))
        self.network.train()

    def train_step(self, waveform: Tensor) -> StepResult:
        """One step of the adversary and one of the codec on `waveform` [B, T]."""
        real = waveform.to(self.device, non_blocking=True)
        output = self.network(self.log_mel(real))
        generated = output.waveform
        weights = self.config.loss
        differences = self.mel_loss(generated, real)
        loss = self.mel_loss.total(differences) + weights.commitment * output.quantizer.commitment_loss
        scalars = {
            f"mel_{term.n_fft}": difference.detach() for term, difference in zip(weights.mel, differences, strict=True)
        }
        scalars["commitment"] = output.quantizer.commitment_loss.detach()
        scalars |= output.quantizer.metrics
        if self.step >= self.config.discriminators.start_step:
            scalars["discriminator"] = self.adversary.train_step(real, generated, self.step)
            asked = self.adversary.generator_losses(real, generated)
            loss = loss + weights.adversarial * asked.adversarial
            loss = loss + weights.feature_matching * asked.feature_matching
            scalars["adversarial"] = asked.adversarial.detach()
            scalars["feature_matching"] = asked.feature_matching.detach()
        step_optimizer(self.optimizer, loss, self.config.generator_optimizer, self.step)
        scalars["generator"] = loss.detach()
        scalars["learning_rate"] = torch.tensor(learning_rate(self.config.generator_optimizer, self.step))
        self.step += 1
        return StepResult(scalars, output.quantizer.codes.detach())

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next step depends on."""
        state: dict[str, Any] = {
            "step": self.step,
            "data_hash": self.data_hash,
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "adversary": self.adversary.state_dict(),
            "adversary_optimizer": self.adversary.optimizer.state_dict(),
            "random_state": torch.get_rng_state(),
        }
        if self.device.type == "cuda":
            state["cuda_random_state"] = torch.cuda.get_rng_state(self.device)
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on exactly where `state_dict` was taken; `InputError` if that was with other data."""
        if state["data_hash"] != self.data_hash:
            raise InputError("The shards are not those that the run has started with; train into another output.")
        self.step = state["step"]
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.adversary.load_state_dict(state["adversary"])
        self.adversary.optimizer.load_state_dict(state["adversary_optimizer"])
        torch.set_rng_state(state["random_state"].cpu())
        if self.device.type == "cuda" and "cuda_random_state" in state:
            torch.cuda.set_rng_state(state["cuda_random_state"].cpu(), self.device)

    def check_finite(self, scalars: dict[str, float]) -> None:
        """Stop a run whose losses are no numbers any more."""
        broken = [name for name, value in scalars.items() if not math.isfinite(value)]
        if broken:
            raise CodectokError(
                f"Training diverged: at step {self.step} {', '.join(broken)} is not a finite number;"
                " lower the learning rate and train into another output."
            )

    def export(self) -> Codec:
        """The codec as it is now, ready for inference on the CPU."""
        header = CheckpointHeader(origin=f"trained for {self.step} steps", config=self.config.codec)
        state = {key: tensor.cpu() for key, tensor in self.network.inference_state_dict().items()}
        return Codec(header, build_network(self.config.codec, state, "the trained network"), device="cpu")
