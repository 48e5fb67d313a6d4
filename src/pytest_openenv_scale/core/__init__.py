"""Measuring and judging, without pytest: every stage takes values or a run directory."""
