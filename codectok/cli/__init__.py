"""Command line with one thin module per verb. torch and Ray are imported only when a verb runs."""
