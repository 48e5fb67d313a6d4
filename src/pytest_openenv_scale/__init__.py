"""How many sessions does an OpenEnv environment server hold at once? A pytest plugin that judges it."""
