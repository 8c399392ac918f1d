"""Jobs over corpora: sources are cut into units, each unit becomes one output file."""
