"""Codecs of other makers' packages: BigCodec, SpeechTokenizer and SNAC."""
