"""Job `evaluate`: measures reconstructions of codecs on a test set."""
