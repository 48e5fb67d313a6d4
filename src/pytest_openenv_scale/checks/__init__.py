"""Questions about any OpenEnv server, each an async function of a `Subject` that ends in a `CheckResult`.

The suite asks them as tests, `openenv-scale check` asks a few of them in seconds. Nothing here imports pytest.

May import core, config, client, results, load, metrics, verdict and engine.
"""
