"""Metrics of one reconstruction, and the metrics that an evaluation measures."""
