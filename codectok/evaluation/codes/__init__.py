"""Statistics of codes: use, cost for a language model, stability, near ties."""
