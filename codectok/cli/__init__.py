"""The command line: one module per verb, each thin. torch and Ray are imported only when a verb runs."""
