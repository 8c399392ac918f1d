"""Channels of a stream: selecting one, or mixing all without losing sound."""
