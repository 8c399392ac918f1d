"""Clips of Parquet files: the choice of the audio column, and its values in all forms."""
