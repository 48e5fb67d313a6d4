"""Ready-made tests for any OpenEnv server: `pytest --pyargs pytest_openenv_scale.suite`.

May import checks and plugin.
"""
