"""One training step: networks, losses, adversary, optimizers and weight averages."""
