"""Runs many sessions in load processes and checks that these kept up. May import client, config, core, results."""
