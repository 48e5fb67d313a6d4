"""The Hugging Face Hub: how it is reached, and runs kept there as a dataset.

May import core, results, metrics, verdict, analysis and reporting. Targets import of it only
how the Hub is reached (`access`).
"""
