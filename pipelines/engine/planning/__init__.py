"""Planning: listed sources cut into units, stored before the job runs."""
