"""Figures and limits become met, missed or inconclusive. May import config, core, metrics, results."""
