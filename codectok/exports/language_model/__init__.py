"""Language models: folders of `transformers` models extended by rows for audio tokens."""
