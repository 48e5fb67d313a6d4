"""Many sessions from worker processes, and whether they kept up. May import client, config, core, results."""
