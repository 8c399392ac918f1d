"""Discriminators and losses reproduce the reference's numbers, for weights filled by a formula (`training.json`)."""

from __future__ import annotations

import json
import math
import re

import numpy as np
import pytest
import torch
from torch import nn

from codectok.config import MelConfig
from codectok.train.discriminators import (
    MultiDiscriminator,
    MultiPeriodDiscriminator,
    MultiScaleDiscriminator,
    MultiScaleSTFTDiscriminator,
)
from codectok.train.discriminators.scale import ScaleDiscriminator
from codectok.train.recipe import (
    LossConfig,
    PeriodDiscriminatorConfig,
    ScaleDiscriminatorConfig,
    STFTDiscriminatorConfig,
)
from codectok.train.trainer.losses import (
    MultiScaleMelLoss,
    adversarial_loss,
    discriminator_loss,
    feature_matching_loss,
)
from tests.helpers.storage import DATA

EXPECTED = json.loads((DATA / "golden" / "training.json").read_text())
GROUPS = {
    "mpd": lambda: MultiPeriodDiscriminator(PeriodDiscriminatorConfig()),
    "msd": lambda: MultiScaleDiscriminator(ScaleDiscriminatorConfig()),
    "mstft": lambda: MultiScaleSTFTDiscriminator(STFTDiscriminatorConfig()),
}
POWER_ITERATIONS = 400


def sines(first: tuple[float, float, float], second: tuple[float, float]) -> torch.Tensor:
    t = np.arange(EXPECTED["n_samples"]) / EXPECTED["sample_rate"]
    wave = first[0] * np.sin(2 * math.pi * first[1] * t + first[2]) + second[0] * np.sin(2 * math.pi * second[1] * t)
    return torch.from_numpy(wave.astype(np.float32)).unsqueeze(0)


REAL = sines((0.3, 440, 0.0), (0.1, 3000))
GENERATED = sines((0.27, 440, 0.4), (0.08, 2900))


def reference_key(group: str, key: str) -> str:
    """Name of our tensor in the reference, which the fill formula depends on."""
    if group == "mstft":
        key = re.sub(r"(convs\.\d+|conv_post)\.", r"\1.conv.", key)
    spectral = group == "msd" and key.startswith("discriminators.0.")
    names = {"original": "weight_orig", "0._u": "weight_u", "0._v": "weight_v"} if spectral else {}
    names |= {"original0": "weight_g", "original1": "weight_v"}
    return re.sub(r"parametrizations\.weight\.(.+)$", lambda match: names[match[1]], key)


def fill(group: str, module: nn.Module) -> None:
    for key, tensor in module.state_dict().items():
        name = reference_key(group, key)
        phase = sum(name.encode()) % 101
        wave = 0.05 * np.sin(0.7 * np.arange(tensor.numel(), dtype=np.float64) + phase)
        values = wave.astype(np.float32) + (1 if name.endswith("weight_g") else 0)
        tensor.copy_(torch.from_numpy(values).view_as(tensor))


def filled(group: str) -> MultiDiscriminator:
    module = GROUPS[group]()
    fill(group, module)
    module.train()
    if group == "msd":
        scale = module.discriminators[0]
        assert isinstance(scale, ScaleDiscriminator)
        with torch.no_grad():
            for _ in range(POWER_ITERATIONS):
                for conv in [*scale.convs, scale.conv_post]:
                    _ = conv.weight
    return module.eval()


@pytest.mark.parametrize("group", GROUPS)
@torch.no_grad()
def test_discriminator_outputs_and_losses_match_reference(group: str) -> None:
    module, expected = filled(group), EXPECTED[group]
    real, generated = module(REAL), module(GENERATED)
    assert [list(j.logits.shape) for j in real] == expected["logit_shapes"]
    assert [[list(f.shape) for f in j.features] for j in real] == expected["feature_shapes"]
    for outputs, name in ((real, "real_logit_means"), (generated, "fake_logit_means")):
        np.testing.assert_allclose([float(j.logits.mean()) for j in outputs], expected[name], rtol=1e-4, atol=1e-6)
    assert float(discriminator_loss(real, generated)) == pytest.approx(expected["discriminator_loss"], rel=1e-5)
    assert float(adversarial_loss(generated)) == pytest.approx(expected["generator_loss"], rel=1e-5)
    matching = LossConfig().feature_matching * float(feature_matching_loss(real, generated))
    assert matching == pytest.approx(expected["feature_matching_loss"], rel=1e-4)


def test_mel_losses_match_reference() -> None:
    loss = MultiScaleMelLoss(LossConfig().mel, MelConfig())
    differences = loss(GENERATED, REAL)
    found = {str(term.n_fft): float(d) for term, d in zip(LossConfig().mel, differences, strict=True)}
    assert found == pytest.approx(EXPECTED["mel_l1"], rel=1e-5)
    assert float(loss.total(differences)) == pytest.approx(EXPECTED["mel_loss_total"], rel=1e-5)
