"""Trainer: one training step, with its losses, adversary, optimizers and moving averages."""
