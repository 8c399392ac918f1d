"""Launchers: start the ranks of a run in this process, by torchrun or on Ray, which also retries after a dead rank."""
