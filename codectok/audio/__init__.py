"""Audio: decoding files, resampling, log-mel, cutting into segments. Knows no model."""
