"""Tokens: the token table and files of codes."""
