"""Export jobs: token tables to training data of language models."""
