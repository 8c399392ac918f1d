"""Executors: where the units of a job run, in this process or on Ray actors."""
