"""The older result files of these experiments, `raw.jsonl` and `summary.csv`: read into runs, and written from them."""
