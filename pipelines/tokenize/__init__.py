"""Job `tokenize`: audio of any source into token tables."""
