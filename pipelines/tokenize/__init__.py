"""Job `tokenize`: encodes audio of any source to token tables."""
