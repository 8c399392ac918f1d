"""Job `import codes`: a token table of codes that other programs wrote."""
