"""Pages of HTML: tables, charts, pictures and players that open from the disk."""
