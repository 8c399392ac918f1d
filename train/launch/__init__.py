"""Launchers: how the ranks of a run start, in this process, by torchrun or on Ray."""
