"""The older result files of these experiments, `raw.jsonl` and `summary.csv`: read into runs, and written from them.

May import core, config, results, metrics and analysis.
"""
