"""Output of a job: files of units, records, totals and the report."""
