"""The self-test: up to which batch this client measures precisely here, against a server that only waits.

May import core, config, client, load and reporting.
"""
