"""Framing of Ogg with Vorbis or Opus."""
