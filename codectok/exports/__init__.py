"""Exports of token tables for training language models."""
