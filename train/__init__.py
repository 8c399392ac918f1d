"""Training of codecs: data from shards, discriminators, losses, the trainer."""
