"""Verification of the output of jobs."""
