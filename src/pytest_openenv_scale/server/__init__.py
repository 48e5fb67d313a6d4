"""The benchmark environment: a Starlette application that speaks OpenEnv and does nothing but wait.

`app` is the application (`pytest_openenv_scale.server.app:app`), `serve` starts it on hypercorn or uvicorn.

May import core.
"""
