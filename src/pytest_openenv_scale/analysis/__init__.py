"""Judged runs, several of them, and what differs. May import config, core, metrics, results, verdict."""
