"""The target `local`: an ASGI application served in child processes."""
