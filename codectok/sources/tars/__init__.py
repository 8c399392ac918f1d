"""Tars with audio: members, texts beside it, and clips."""
