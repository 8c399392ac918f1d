"""Engine of jobs: plan, units, commits, locks, faults and reports."""
