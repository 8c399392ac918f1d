"""Conversations with audio as training data for language models."""
