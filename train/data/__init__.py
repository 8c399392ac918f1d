"""Training data: an exact, resumable stream of segments from shards."""
