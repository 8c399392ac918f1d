"""One training step: networks, losses, adversary, optimizers and weight averages.

The codebooks are updated in every step by `codectok.model.quantization.temporal.TemporalQuantizer.update_codebooks`.
"""
