"""Files at URLs: read in bounded blocks, with retries, from web servers and from the stores that fsspec knows."""
