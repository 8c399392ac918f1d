"""Evaluation of codecs: metrics of reconstructions, codebook usage, reports."""
