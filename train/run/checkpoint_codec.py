"""The codec of a training checkpoint, for inference."""

from __future__ import annotations

from pathlib import Path

from codectok.codec import Codec
from codectok.config import load_mapping, parse
from codectok.errors import InputError
from codectok.model.network import CodecNetwork
from codectok.train.config import TrainConfig
from codectok.train.trainer.averaging import WeightAverage, averaged
from codectok.train.trainer.export import same_codes_of, trained_codec

from .checkpoint import (
    CONFIG_FILE,
    checkpoint_errors,
    is_training_checkpoint,
    latest_checkpoint,
    load_training_state,
)
from .output import CHECKPOINT_FOLDER


def codec_of_checkpoint(folder: Path) -> Codec:
    """Return the codec of a checkpoint on the CPU, with averaged weights if the run averages them.

    It is the codec that the run would write if it ended at this step. The run may still be training.

    Args:
        folder: of a checkpoint, or of a run, whose newest checkpoint is taken.

    Raises:
        InputError: the folder is neither, or the run has no checkpoint yet.
        CheckpointError: the checkpoint is damaged.
    """
    checkpoint: Path | None = folder
    if not is_training_checkpoint(folder):
        checkpoint = latest_checkpoint(folder / CHECKPOINT_FOLDER)
    if checkpoint is None:
        raise InputError(f"{folder} is neither a training checkpoint nor a run that has one; give such a folder.")
    path = checkpoint / CONFIG_FILE
    config = parse(TrainConfig, load_mapping(path), str(path))
    state = load_training_state(checkpoint)
    network = CodecNetwork(config.codec)
    network.prepare_for_training()
    if config.train_only:
        network.fix_codes()
    with checkpoint_errors(checkpoint):
        network.load_state_dict(state["network"])
        average = None if config.weight_average is None else WeightAverage(network, config.weight_average)
        if average is not None:
            average.load_state_dict(state["average"])
        same_codes = same_codes_of(state)
    with averaged(average):
        return trained_codec(config.codec, network, state["step"], same_codes)
