"""`openenv-scale check`: a few questions in seconds, before a sweep."""
