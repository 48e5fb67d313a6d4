"""The conductor of a sweep. May import client, config, core, load, metrics, results, verdict."""
