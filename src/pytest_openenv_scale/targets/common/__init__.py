"""What several targets share: options, readiness, files, and child processes with all their ends."""
