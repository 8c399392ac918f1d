"""Framing: where the streams of an audio file begin and end, by its bytes instead of its headers' claims."""
