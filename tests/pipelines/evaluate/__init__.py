"""Tests of the job `evaluate`."""
