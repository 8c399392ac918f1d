"""Layouts of known corpora: which files beside the audio hold its text and labels."""
