"""What a run keeps: the row, parts, facts of a cell, manifest, run directory. May import config, core."""
