"""From a token table to what trains a language model."""
