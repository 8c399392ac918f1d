"""Sources of audio: folders, manifests, tars, Parquet files and rows of tables, and what each clip in them is."""
