"""Tests of codecs of other makers."""
