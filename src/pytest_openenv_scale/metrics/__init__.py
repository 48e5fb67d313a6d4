"""Rows become the figures of a cell. May import config, core, results."""
