"""Builds, damages and reads hostile inputs; used by `fuzz_hostile.py`."""
