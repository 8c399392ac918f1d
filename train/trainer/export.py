"""The trained codec, for inference."""

from __future__ import annotations

from codectok.checkpoints.native import CheckpointHeader, SameCodes, build_network
from codectok.codec import Codec
from codectok.config import CodecConfig
from codectok.model.network import CodecNetwork


def trained_codec(config: CodecConfig, network: CodecNetwork, step: int, same_codes: tuple[str, ...] = ()) -> Codec:
    """Return a network in training as a codec on the CPU; its weights are copied.

    Args:
        config: of the network.
        network: with the weights to take.
        step: number of steps that it was trained for.
        same_codes: fingerprints of codecs with the same codes.
    """
    state = {key: tensor.cpu() for key, tensor in network.inference_state_dict().items()}
    header = CheckpointHeader(origin=f"trained for {step} steps", config=config)
    codec = Codec(header, build_network(config, state, "the trained network"), device="cpu")
    if same_codes:
        same = SameCodes(codecs=same_codes, encoding=codec.encoding_sha256)
        codec.header = header.model_copy(update={"same_codes": same})
    return codec
