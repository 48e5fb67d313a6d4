"""The server: `uvicorn server.app:app`, or `python -m server.app`."""

from openenv.core.env_server.http_server import create_app

try:
    from ..models import CountdownAction, CountdownObservation, CountdownState
    from .countdown_environment import CountdownEnvironment
except ImportError:
    from models import CountdownAction, CountdownObservation, CountdownState
    from server.countdown_environment import CountdownEnvironment

app = create_app(
    CountdownEnvironment,
    CountdownAction,
    CountdownObservation,
    env_name="countdown",
    max_concurrent_envs=64,
    state_cls=CountdownState,
)


def main() -> None:
    import uvicorn

    uvicorn.run(app, host="0.0.0.0", port=8000)


if __name__ == "__main__":
    main()
