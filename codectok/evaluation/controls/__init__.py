"""Controls: reconstructions of known quality, beside which codecs are measured."""
