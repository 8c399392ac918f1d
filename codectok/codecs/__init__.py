"""The interface of all codecs, and codecs of other makers."""
