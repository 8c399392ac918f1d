"""The trained codec, for inference."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from codectok.checkpoints.native import CheckpointHeader, SameCodes, build_network
from codectok.codec import Codec
from codectok.config import CodecConfig
from codectok.model.network import CodecNetwork


def origin_of_step(step: int) -> str:
    """Return the `origin` in the header of a codec that was trained for `step` steps."""
    return f"trained for {step} steps"


def trained_codec(config: CodecConfig, network: CodecNetwork, step: int, same_codes: SameCodes | None) -> Codec:
    """Return a network in training as a codec on the CPU; its weights are copied.

    Args:
        config: of the network.
        network: with the weights to take.
        step: number of steps that it was trained for.
        same_codes: codecs whose encoder and quantizer the network has; None if they were trained.
    """
    state = {key: tensor.cpu() for key, tensor in network.inference_state_dict().items()}
    header = CheckpointHeader(origin=origin_of_step(step), config=config, same_codes=same_codes)
    return Codec(header, build_network(config, state, "the trained network"), device="cpu")


def same_codes_of(state: Mapping[str, Any]) -> SameCodes | None:
    """Return the codecs with the same codes that a training state names; raises a `ValueError` if they are damaged."""
    found = state.get("same_codes")  # states of earlier versions have no such entry
    return None if found is None else SameCodes.model_validate(found)
