"""Sources of audio and text: folders, manifests, tars, Parquet and JSON lines, and the clips and rows in them."""
