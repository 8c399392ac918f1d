"""Manifests: lists of files or spans of them, with text and labels."""
