"""What this client can resolve on this machine: itself against a server that does nothing but wait.

May import core, config, client, load and reporting.
"""
