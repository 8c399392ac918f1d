"""Job `shard`: recordings of any length into segments, in WebDataset tars."""
