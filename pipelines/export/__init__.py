"""Jobs `export`: token tables into what trains language models."""
