"""The training step and what a run has to remember."""

from __future__ import annotations

import math
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from codectok.audio.mel import LogMel
from codectok.checkpoints import CheckpointHeader, build_network
from codectok.codec import Codec
from codectok.config import FiniteScalarQuantizerConfig
from codectok.model.network import CodecNetwork, NetworkOutput
from codectok.train.config import TrainConfig
from codectok.train.distributed import Ranks

from .adversary import Adversary
from .averaging import WeightAverage
from .losses import MultiScaleMelLoss
from .optimizer import build_optimizer, learning_rate, step_optimizer
from .warm_start import inherit, load_ancestor

VECTORS_PER_CODE = 4


class Trainer:
    """A codec in training together with its adversary; deterministic for a seed, a device and a number of ranks.

    Args:
        config: of the run.
        device: of this rank.
        ranks: among which it is one; alone by default.
        goes_on: a checkpoint will be loaded, so that what the codec starts with does not matter.
    """

    def __init__(
        self, config: TrainConfig, device: torch.device, ranks: Ranks | None = None, goes_on: bool = False
    ) -> None:
        torch.manual_seed(config.seed)
        self.config = config
        self.device = device
        self.ranks = ranks or Ranks()
        self.step = 0
        self.network = CodecNetwork(config.codec)
        self._teacher: CodecNetwork | None = None
        if config.init_from is not None and (config.loss.distillation or not goes_on):
            ancestor = load_ancestor(config.init_from, config.codec).network
            inherit(self.network, ancestor)
            if config.loss.distillation:
                self._teacher = ancestor.to(device).requires_grad_(False)
        self.network.prepare_for_training()
        self.network.to(device).train()
        if config.loss.diversity:
            self.network.quantizer.measure_diversity()
        self.log_mel = LogMel(config.codec.mel).to(device)
        self.mel_loss = MultiScaleMelLoss(config.loss.mel, config.codec.mel).to(device)
        self.optimizer = build_optimizer(self.network.parameters(), config.generator_optimizer)
        self.adversary = Adversary(
            config.discriminators, config.discriminator_optimizer, config.precision, self.ranks
        ).to(device)
        self.average = None if config.weight_average is None else WeightAverage(self.network, config.weight_average)
        self._reconstruct = self.ranks.synchronized(self.network)

    @torch.no_grad()
    def initialize_codebooks(self, batches: Iterable[Tensor]) -> None:
        """Start the codebooks, where there are any, from the features of as many batches [B, T] as it takes.

        Ranks with parts of the same batches get the same codebooks as one rank with all of them.
        """
        codec = self.config.codec
        if isinstance(codec.quantizer, FiniteScalarQuantizerConfig):
            return
        # More vectors than codes: what a code was placed on leaves nothing over for the codebook after it.
        wanted = VECTORS_PER_CODE * codec.quantizer.codebook_size * codec.frame_size
        n_batches = math.ceil(wanted / (self.config.data.batch_size * self.config.segment_samples))
        self.network.eval()
        features = []
        for _, waveform in zip(range(n_batches), batches, strict=False):
            parts = waveform.to(self.device).chunk(self.config.accumulation)
            with self.autocast():
                found = [self.network.encoder(self.log_mel(part)).float() for part in parts]
            features.append(self.ranks.gather(torch.cat(found)))
        self.network.quantizer.initialize_codebooks(torch.cat(features), self.config.seed)
        # Ranks on other hardware round in another way, and clusters go different ways from there.
        for buffer in self.network.quantizer.buffers():
            self.ranks.take_from_first(buffer)
        self.network.train()

    def train_step(self, waveform: Tensor) -> dict[str, Tensor]:
        """One step of the adversary and one of the codec on this rank's `waveform` [B, T].

        Returns:
            Scalars of the step on the device, of this rank.
        """
        parts = waveform.to(self.device, non_blocking=True).chunk(self.config.accumulation)
        adversarial = self.step >= self.config.discriminators.start_step
        held = self._pass(parts[0], 0) if len(parts) == 1 else None
        scalars: dict[str, Tensor] = {}
        if adversarial:
            # With several parts their graphs do not all fit into memory: they are computed again for the codec's turn.
            generated = [held.waveform] if held else [self._preview(part, n) for n, part in enumerate(parts)]
            scalars["discriminator"] = self.adversary.train_step(
                list(zip(parts, generated, strict=True)), self.step - self.config.discriminators.start_step
            )
        found, passes = [], []
        for number, part in enumerate(parts):
            with self.ranks.accumulating(self._reconstruct, last=number == len(parts) - 1):
                output = held or self._pass(part, number)
                losses = self._losses(part, output, adversarial)
                (losses["generator"] / len(parts)).backward()
            found.append({name: loss.detach() for name, loss in losses.items()})
            passes.append(output.quantizer.frames)
        self.network.quantizer.update_codebooks(passes)
        step_optimizer(self.optimizer, self.config.generator_optimizer, self.step)
        if self.average is not None:
            self.average.update()
        scalars |= {name: torch.stack([losses[name] for losses in found]).mean() for name in found[0]}
        scalars["learning_rate"] = torch.tensor(learning_rate(self.config.generator_optimizer, self.step))
        self.step += 1
        return scalars

    def _pass(self, waveform: Tensor, part: int) -> NetworkOutput:
        self._seed(part)
        log_mel = self.log_mel(waveform)
        with self.autocast():
            output = self._reconstruct(log_mel)
        output.waveform = output.waveform.float()
        return output

    @torch.no_grad()
    def _preview(self, waveform: Tensor, part: int) -> Tensor:
        """What the pass with gradients will give again."""
        self._seed(part)
        with self.autocast():
            return self.network(self.log_mel(waveform)).waveform.float()

    def _losses(self, real: Tensor, output: NetworkOutput, adversarial: bool) -> dict[str, Tensor]:
        """Unweighted terms, and their weighted sum as `generator`."""
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
        if output.quantizer.diversity_loss is not None:
            add("diversity", weights.diversity, output.quantizer.diversity_loss)
        if self._teacher is not None:
            taught, learned = self._quantized_by_teacher(real), output.quantizer.features.float()
            # With other time factors one may have some frames more, of padding.
            n_frames = min(taught.shape[1], learned.shape[1])
            add("distillation", weights.distillation, F.mse_loss(learned[:, :n_frames], taught[:, :n_frames]))
        if adversarial:
            asked = self.adversary.generator_losses(real, generated)
            add("adversarial", weights.adversarial, asked.adversarial)
            add("feature_matching", weights.feature_matching, asked.feature_matching)
        return {**losses, "generator": total}

    @torch.no_grad()
    def _quantized_by_teacher(self, waveform: Tensor) -> Tensor:
        assert self._teacher is not None
        log_mel = self.log_mel(waveform)
        with self.autocast():
            return self._teacher.quantizer.decode(self._teacher.encode(log_mel)).float()

    def _seed(self, part: int) -> None:
        """Chance depends on the step alone: nothing of it is left over to be saved."""
        entropy = [self.config.seed, self.step, self.ranks.rank, part]
        torch.manual_seed(int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> 1))

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next step depends on."""
        return {
            "step": self.step,
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "adversary": self.adversary.state_dict(),
            "adversary_optimizer": self.adversary.optimizer.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on exactly where `state_dict` was taken."""
        self.step = state["step"]
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.adversary.load_state_dict(state["adversary"])
        self.adversary.optimizer.load_state_dict(state["adversary_optimizer"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])

    def autocast(self) -> AbstractContextManager[object]:
        """Layers in the configured precision."""
        if self.config.precision == "float32":
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)

    def averaged(self) -> AbstractContextManager[None]:
        """The network's weights are their moving averages while this lasts, where there are any."""
        return nullcontext() if self.average is None else self.average.applied()

    def export(self) -> Codec:
        """The codec as it is now, ready for inference on the CPU."""
        header = CheckpointHeader(origin=f"trained for {self.step} steps", config=self.config.codec)
        with self.averaged():
            state = {key: tensor.cpu() for key, tensor in self.network.inference_state_dict().items()}
        return Codec(header, build_network(self.config.codec, state, "the trained network"), device="cpu")
