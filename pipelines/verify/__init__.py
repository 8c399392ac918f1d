"""Verification of job outputs."""
