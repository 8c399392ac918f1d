"""Job `shard`: cuts recordings into segments and writes them as WebDataset tars."""
