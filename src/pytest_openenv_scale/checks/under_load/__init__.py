"""Many sessions: what a full server refuses, what they leave behind, whether it stays quick and fair."""
