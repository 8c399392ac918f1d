"""Token layouts: how codes are written as token strings, characters or ids of a language model."""
